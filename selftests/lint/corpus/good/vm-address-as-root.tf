provider "proxmox" {
  endpoint = "https://pve.example.org:8006/"
  username = "root@pam"
  password = var.password
}
resource "proxmox_virtual_environment_vm" "gpu" {
  machine = "q35" # with pcie
  hostpci {
    device = "hostpci0"
    id     = "0000:3b:00"
    pcie   = true
  }
  hostpci {
    device = "hostpci1"
    id     = "0000:af:00.0;0000:af:00.1"
  }
}
