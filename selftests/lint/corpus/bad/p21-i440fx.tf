resource "proxmox_virtual_environment_vm" "gpu" {
  machine = "pc-i440fx-9.0"
  hostpci {
    device  = "hostpci0"
    mapping = "t4"
    pcie    = true
  }
}
