resource "proxmox_virtual_environment_vm" "gpu" {
  machine = "q35"
  hostpci {
    device  = "hostpci0"
    mapping = "t4"
    x_vga   = false
  }
}
