"""The host layer on a real kernel: Debian in QEMU with an emulated IOMMU, reached over its own sshd."""
