# Builds a Debian guest image: SUITE MIRROR FOLDER [APT_OPTION...], into FOLDER/base.qcow2. Needs root, loop devices and a
# mount namespace of its own (its caller gives it one), so that no mount outlives it. Source: facts real-host, "Recipe".
set -euo pipefail
suite=$1 mirror=$2 folder=$3
shift 3
options=()
for option in "$@"; do options+=("--aptopt=$option"); done
uuid=11111111-2222-3333-4444-555555555555
root=$folder/root mounted=$folder/mounted disk=$folder/disk.img

mmdebstrap --quiet --variant=minbase --mode=root --dpkgopt=force-unsafe-io \
  --include=linux-image-amd64,initramfs-tools,grub-pc,systemd-sysv,udev,dbus,openssh-server,pciutils,kmod,iproute2,procps,zstd \
  --aptopt='APT::Install-Recommends "false"' "${options[@]}" \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  "$suite" "$root" "$mirror"

# No mirror and no key of the building machine stays in the image; the guest reaches no network.
rm -f "$root"/etc/apt/apt.conf.d/99mmdebstrap "$root"/etc/apt/sources.list "$root"/etc/ssh/ssh_host_*
mkdir -p "$root"/root/.ssh "$root"/etc/systemd/network "$root"/etc/default/grub.d
chmod 700 "$root"/root/.ssh
echo guest > "$root"/etc/hostname
echo "UUID=$uuid / ext4 noatime 0 1" > "$root"/etc/fstab
printf '[Match]\nName=en* eth*\n[Network]\nDHCP=ipv4\n' > "$root"/etc/systemd/network/wired.network
# In the guest `dep` looks at the guest's devices; all modules would take ten minutes (facts real-host, pitfall 12).
sed -i 's/^MODULES=.*/MODULES=dep/' "$root"/etc/initramfs-tools/initramfs.conf
# Emulated on a busy machine the timer is too late for the kernel's own test of it, which then panics at boot (seen:
# "timer doesn't work through Interrupt-remapped IO-APIC").
cat > "$root"/etc/default/grub <<'GRUB'
GRUB_DEFAULT=0
GRUB_TIMEOUT=0
GRUB_DISTRIBUTOR=Debian
GRUB_CMDLINE_LINUX_DEFAULT="quiet"
GRUB_CMDLINE_LINUX="console=ttyS0 no_timer_check"
GRUB_TERMINAL=console
GRUB
# Debian's kernels have VT-d on by default; this is the host of a kernel that has not (facts real-host, pitfall 3).
echo 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX intel_iommu=off"' > "$root"/etc/default/grub.d/00-old-default.cfg
# Keys come with every boot through QEMU's fw_cfg, so that a cached image holds none.
cat > "$root"/etc/systemd/system/labproof-keys.service <<'UNIT'
[Unit]
Description=SSH keys from the machine's firmware configuration
Before=ssh.service
[Service]
Type=oneshot
UMask=0077
ExecStart=/bin/sh -ec 'modprobe qemu_fw_cfg; cd /sys/firmware/qemu_fw_cfg/by_name/opt/labproof; cat user/raw > /root/.ssh/authorized_keys; cat host/raw > /etc/ssh/ssh_host_ed25519_key'
[Install]
WantedBy=multi-user.target
UNIT
echo 'HostKey /etc/ssh/ssh_host_ed25519_key' > "$root"/etc/ssh/sshd_config.d/labproof.conf
systemctl --quiet --root="$root" enable systemd-networkd.service ssh.service serial-getty@ttyS0.service labproof-keys.service
systemctl --quiet --root="$root" mask e2scrub_reap.service e2scrub_all.timer apt-daily.timer apt-daily-upgrade.timer fstrim.timer \
  sshd-keygen.service systemd-networkd-wait-online.service

truncate -s 3G "$disk"
echo 'start=2048,type=83,bootable' | sfdisk --quiet "$disk"
loop=$(losetup -f --show "$disk")
trap 'umount -R "$mounted" 2>/dev/null || true; partx -d "$loop" 2>/dev/null || true; losetup -d "$loop"' EXIT
partx -a "$loop" # `losetup -P` makes no nodes where the kernel parses no partition tables (facts real-host, pitfall 1)
for _ in $(seq 50); do [ -b "${loop}p1" ] && break; sleep 0.1; done
mkfs.ext4 -q -U "$uuid" "${loop}p1"
mkdir "$mounted"
mount "${loop}p1" "$mounted"
cp -a "$root"/. "$mounted"/
for place in dev proc sys; do mount --bind "/$place" "$mounted/$place"; done
chroot "$mounted" grub-install --target=i386-pc "$loop"
chroot "$mounted" update-grub
# No by-uuid link for a loop partition: the first boot would end in the initramfs (facts real-host, pitfall 2).
sed -i "s,root=${loop}p1,root=UUID=$uuid,g" "$mounted"/boot/grub/grub.cfg
sync
umount -R "$mounted"
partx -d "$loop"
losetup -d "$loop"
trap - EXIT
qemu-img convert -O qcow2 "$disk" "$folder"/base.qcow2
rm -rf "$root" "$disk" "$mounted"
