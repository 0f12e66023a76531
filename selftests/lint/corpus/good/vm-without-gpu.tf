resource "proxmox_virtual_environment_vm" "plain" {
  name = "plain"
  network_device { bridge = "vmbr0" }
}
module "x" {
  source = "./x"
  list   = [for k, v in var.m : { name = k, value = "${v}-${k}" } if v != null]
}
