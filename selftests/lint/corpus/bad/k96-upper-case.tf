resource "proxmox_virtual_environment_vm" "gpu" {
  hostpci {
    device = "hostpci0"
    id     = "0000:3B:00.0"
  }
}
