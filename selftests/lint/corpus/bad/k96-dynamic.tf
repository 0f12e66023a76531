resource "proxmox_virtual_environment_vm" "node" {
  machine = "q35"
  dynamic "hostpci" {
    for_each = var.pci_devices
    content {
      device = hostpci.value.device_id
      pcie   = hostpci.value.pcie
      xvga   = false
    }
  }
}
