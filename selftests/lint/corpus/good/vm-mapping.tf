variable "cards" {
  type = list(object({ pcie = bool }))
}
resource "proxmox_virtual_environment_vm" "gpu" {
  name    = "gpu"
  machine = "q35"
  bios    = "ovmf"
  cpu { type = "host" }
  hostpci {
    device  = "hostpci0"
    mapping = "t4"
    pcie    = true
    rombar  = true
    xvga    = false
  }
  description = <<-EOT
    hostpci { device = "x" }
  EOT
}
