resource "proxmox_hardware_mapping_pci" "t4" {
  name = "t4"
  map = [
    {
      id           = "10de:1eb8"
      node         = "pve5"
      path         = "0000:3b:00.0"
      subsystem_id = "10de:12a2"
    },
  ]
}
