resource "proxmox_virtual_environment_vm" "gpu" {
  name = "gpu"
  hostpci {
    device  = "hostpci0"
    mapping = "t4"
    pcie    = true
  }
}
