resource "proxmox_virtual_environment_vm" "talos_node" {
  machine = "q35"
  bios    = "ovmf"
  dynamic "hostpci" {
    for_each = var.pci_devices
    content {
      device  = "hostpci${hostpci.key}"
      mapping = hostpci.value.mapping
      pcie    = true
      rombar  = hostpci.value.rombar
      xvga    = false
    }
  }
}
