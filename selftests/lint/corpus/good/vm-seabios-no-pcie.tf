resource "proxmox_virtual_environment_vm" "igpu" {
  bios = "seabios"
  cpu { type = "x86-64-v2-AES" }
  hostpci {
    device  = "hostpci0"
    mapping = "igpu"
  }
}
