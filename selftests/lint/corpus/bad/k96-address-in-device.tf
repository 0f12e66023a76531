resource "proxmox_virtual_environment_vm" "gpu" {
  machine = "q35"
  hostpci {
    device = "0000:3b:00.0"
    pcie   = true
  }
}
