locals {
  nodes = {
    gpu = { machine = "q35", cards = [{ slot = "hostpci0", map = "t4", pcie = true }] }
  }
}
resource "proxmox_virtual_environment_vm" "node" {
  for_each = local.nodes
  machine  = each.value.machine
  dynamic "hostpci" {
    for_each = each.value.cards
    content {
      device  = hostpci.value.slot
      mapping = hostpci.value.map
      pcie    = hostpci.value.pcie
    }
  }
}
