provider "proxmox" {
  endpoint  = "https://pve.example.org:8006/"
  api_token = var.token
}
resource "proxmox_virtual_environment_vm" "gpu" {
  machine = "q35"
  hostpci {
    device = "hostpci0"
    id     = "0000:3b:00.0"
    pcie   = true
  }
}
