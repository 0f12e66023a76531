# labproof host probe. Reads one host and changes nothing: no file is written outside this shell's standard output.
#
# Plain POSIX sh (dash, busybox ash), read from standard input:  sh -s < host_probe.sh
# Output is a sequence of sections, `@@ NAME SOURCE`, body, `@@= STATUS`. Body lines never begin with `@@`: each
# begins with a word of ours or, for text of others, with `|`. STATUS is the exit status: 1 = not there, 13 = this
# account may not read it, 127 = command not there.
# /proc and /sys are preferred to commands, and small files are read by the shell itself: a busy host is not loaded
# with thousands of processes. proxmox-boot-tool is not called: even its `status` mounts the ESPs.

LC_ALL=C
export LC_ALL
PATH="${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
unset CDPATH

begin() { printf '@@ %s\n' "$*"; }
end() { printf '@@= %s\n' "$1"; }

# word FILE: first line of FILE into $word; fails when it cannot be read.
word() {
    word=
    { IFS= read -r word < "$1"; } 2>/dev/null || [ -n "$word" ]
}

# say KEY FILE: one `KEY value` line when FILE can be read.
say() {
    if word "$2"; then printf '%s %s\n' "$1" "$word"; fi
}

# quote: prefix every line of standard input.
quote() {
    while IFS= read -r line || [ -n "$line" ]; do printf '|%s\n' "$line"; done
}

# names DIR: what DIR contains.
names() {
    for entry in "$1"/*; do
        if [ -e "$entry" ] || [ -h "$entry" ]; then printf '|%s\n' "${entry##*/}"; fi
    done
}

# text FILE...: the lines of each file that are neither blank nor comment.
text() {
    for file in "$@"; do
        [ -f "$file" ] || continue
        if [ ! -r "$file" ]; then printf 'unreadable %s\n' "$file"; continue; fi
        printf 'file %s\n' "$file"
        while IFS= read -r line || [ -n "$line" ]; do
            case $line in '' | '#'* | '	#'* | ' #'*) ;; *) printf '|%s\n' "$line" ;; esac
        done < "$file"
    done
}

# mtimes FILE...: one `mtime SECONDS FILE` line for each that exists.
mtimes() {
    command -v stat >/dev/null 2>&1 || return 0
    for file in "$@"; do
        if [ -e "$file" ]; then stat -c 'mtime %Y %n' "$file" 2>/dev/null; fi
    done
}

denied=13
have() { command -v "$1" >/dev/null 2>&1; }

# An installed copy behind a forced-command key says which copy it is; from standard input there is no file.
begin probe "1"
case $0 in
    */*probe*) if have sha256sum; then printf 'installed %s\n' "$(sha256sum < "$0" 2>/dev/null)"; fi ;;
esac
end 0

begin host "/proc/sys/kernel, /proc/stat, id -u"
word /proc/sys/kernel/hostname || word=$(uname -n 2>/dev/null)
printf 'hostname %s\n' "$word"
word /proc/sys/kernel/osrelease || word=$(uname -r 2>/dev/null)
release=$word
printf 'kernel %s\n' "$release"
say boot_id /proc/sys/kernel/random/boot_id
while read -r key value rest; do
    case $key in btime) printf 'boot_time %s\n' "$value" ;; esac
done < /proc/stat 2>/dev/null
say uptime /proc/uptime
uid=$(id -u 2>/dev/null) && printf 'uid %s\n' "$uid"
clock=$(date +%s 2>/dev/null) && printf 'clock %s\n' "$clock"
while IFS= read -r line; do
    case $line in PRETTY_NAME=*) printf 'distribution %s\n' "${line#PRETTY_NAME=}" ;; esac
done < /etc/os-release 2>/dev/null
while IFS= read -r line; do
    case $line in vendor_id*) printf 'cpu_vendor %s\n' "${line##*: }"; break ;; esac
done < /proc/cpuinfo 2>/dev/null
end 0

begin pve "/proc/mounts, dpkg-query -W pve-manager"
while read -r device point type rest; do
    case $point in /etc/pve) printf 'mounted %s\n' "$type" ;; esac
done < /proc/mounts 2>/dev/null
if [ -e /etc/pve/local ] || [ -h /etc/pve/local ]; then printf 'local yes\n'; fi
if have dpkg-query; then
    version=$(dpkg-query -W -f '${Version}' pve-manager 2>/dev/null) && printf 'version %s\n' "$version"
fi
end 0

begin cmdline "/proc/cmdline"
quote < /proc/cmdline 2>/dev/null
end $?

begin boot "/sys/firmware/efi, efibootmgr -v"
if [ -d /sys/firmware/efi ]; then printf 'efi yes\n'; else printf 'efi no\n'; fi
variables=/sys/firmware/efi/efivars
if [ -e $variables/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f ] && have tr; then
    printf 'loader %s\n' "$(tr -cd '[:print:]' < $variables/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f 2>/dev/null)"
fi
if [ -r $variables/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c ] && have od; then
    printf 'secure_boot %s\n' "$(od -An -tu1 -j4 -N1 $variables/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c 2>/dev/null)"
fi
say lockdown /sys/kernel/security/lockdown
if [ -d /sys/firmware/efi ] && have efibootmgr; then
    efibootmgr -v 2>/dev/null | while IFS= read -r line; do
        case $line in BootCurrent* | Boot[0-9A-F]*) printf 'efibootmgr %s\n' "$line" ;; esac
    done
fi
end 0

begin boot_files "/etc/default/grub, /etc/kernel/cmdline"
boot_files="/etc/default/grub /etc/kernel/cmdline /etc/kernel/proxmox-boot-uuids /etc/kernel/proxmox-boot-pin
    /etc/kernel/next-boot-pin"
for file in /etc/default/grub /etc/default/grub.d/*.cfg; do
    [ -f "$file" ] || continue
    if [ ! -r "$file" ]; then printf 'unreadable %s\n' "$file"; continue; fi
    printf 'file %s\n' "$file"
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in GRUB_CMDLINE_LINUX* | GRUB_DEFAULT* | *'export GRUB_CMDLINE_LINUX'*) printf '|%s\n' "$line" ;; esac
    done < "$file"
done
# shellcheck disable=SC2086 # a list of words
for file in ${boot_files#/etc/default/grub}; do
    [ -f "$file" ] || continue
    if [ ! -r "$file" ]; then printf 'unreadable %s\n' "$file"; continue; fi
    printf 'file %s\n' "$file"
    quote < "$file"
done
# shellcheck disable=SC2086
mtimes $boot_files /etc/default/grub.d/*.cfg
end 0

begin kernels "/boot"
for file in /boot/vmlinuz-*; do
    if [ -e "$file" ]; then printf '|%s\n' "${file##*/vmlinuz-}"; fi
done
end 0

begin kernel_config "/boot/config-$release"
if [ -r "/boot/config-$release" ]; then
    while IFS= read -r line; do
        case $line in
            CONFIG_INTEL_IOMMU* | CONFIG_AMD_IOMMU* | CONFIG_VFIO* | CONFIG_IOMMU_DEFAULT*) printf '|%s\n' "$line" ;;
            '# CONFIG_INTEL_IOMMU'* | '# CONFIG_IOMMU_DEFAULT'*) printf '|%s\n' "$line" ;;
        esac
    done < "/boot/config-$release"
    end 0
else
    end 1
fi

begin firmware_tables "ls /sys/firmware/acpi/tables"
if [ -d /sys/firmware/acpi/tables ]; then names /sys/firmware/acpi/tables; end 0; else end 1; fi

begin iommus "ls /sys/class/iommu"
if [ -d /sys/class/iommu ]; then names /sys/class/iommu; end 0; else end 1; fi

begin iommu_groups "ls /sys/kernel/iommu_groups/*/devices"
if [ -d /sys/kernel/iommu_groups ]; then
    for group in /sys/kernel/iommu_groups/*; do
        [ -d "$group" ] || continue
        printf 'group %s\n' "${group##*/}"
        say type "$group/type"
        for entry in "$group"/devices/*; do
            if [ -e "$entry" ] || [ -h "$entry" ]; then printf 'device %s\n' "${entry##*/}"; fi
        done
        if [ -r "$group/reserved_regions" ]; then
            while IFS= read -r line; do printf 'reserved %s\n' "$line"; done < "$group/reserved_regions"
        fi
    done
    end 0
else
    end 1
fi

begin interrupts "grep -c IR- /proc/interrupts"
if [ -r /proc/interrupts ] && have grep; then
    printf 'remapped %s\n' "$(grep -c ' IR-' /proc/interrupts)"
    end 0
else
    end 1
fi

begin pci "/sys/bus/pci/devices"
if [ -d /sys/bus/pci/devices ]; then
    for device in /sys/bus/pci/devices/*; do
        [ -e "$device/vendor" ] || continue
        printf 'device %s\n' "${device##*/}"
        # power_state before config: reading configuration space wakes a sleeping device, as lspci does
        for key in vendor device subsystem_vendor subsystem_device class revision driver_override boot_vga \
            reset_method power_state numa_node current_link_width max_link_width sriov_numvfs; do
            say "$key" "$device/$key"
        done
        if [ -r "$device/resource" ]; then
            while IFS= read -r line; do printf 'resource %s\n' "$line"; done < "$device/resource"
        fi
        word "$device/class"
        case $word in
            0x0604*) continue ;; # bridges are never passed
        esac
        # the first four bytes of a virtual function read ff by specification
        if [ ! -h "$device/physfn" ] && [ -r "$device/config" ] && have od; then
            printf 'config %s\n' "$(od -An -tx1 -N4 "$device/config" 2>/dev/null)"
        fi
    done
    end 0
else
    end 1
fi

# One ls for all links instead of a readlink for each.
begin links "ls -ld /sys/bus/pci/devices/*/driver"
if have ls; then
    ls -ld /sys/bus/pci/devices/*/driver /sys/bus/pci/devices/*/iommu_group /sys/bus/pci/devices/*/physfn \
        /sys/class/net/* /sys/class/block/* 2>/dev/null | while IFS= read -r line; do
        case $line in *' -> '*) printf '|%s\n' "/${line#*/}" ;; esac
    done
    end 0
else
    end 127
fi

begin net "/sys/class/net"
for entry in /sys/class/net/*; do
    if [ -e "$entry/operstate" ] && word "$entry/operstate"; then printf '%s %s\n' "${entry##*/}" "$word"; fi
done
end 0

begin mounts "/proc/mounts, /proc/swaps, /sys/class/block/*/slaves"
while read -r device point rest; do
    case $device in /dev/*) printf 'used %s %s\n' "$device" "$point" ;; esac
done < /proc/mounts 2>/dev/null
while read -r device rest; do
    case $device in /dev/*) printf 'used %s swap\n' "$device" ;; esac
done < /proc/swaps 2>/dev/null
for entry in /sys/class/block/*; do
    [ -d "$entry/slaves" ] || continue
    for slave in "$entry"/slaves/*; do
        if [ -e "$slave" ] || [ -h "$slave" ]; then printf 'slave %s %s\n' "${entry##*/}" "${slave##*/}"; fi
    done
done
if have zpool; then
    zpool list -vHP 2>/dev/null | while read -r device rest; do
        case $device in /dev/*) printf 'used %s zpool\n' "$device" ;; esac
    done
fi
if have readlink; then # /dev/disk/by-id names of a pool, /dev/mapper names of a volume
    for entry in /dev/mapper/* /dev/disk/by-id/*; do
        if [ -h "$entry" ]; then printf 'alias %s %s\n' "$entry" "$(readlink -f "$entry" 2>/dev/null)"; fi
    done
fi
end 0

begin modules "/proc/modules"
if [ -r /proc/modules ]; then
    while read -r name size count users rest; do
        printf '%s %s %s\n' "$name" "$count" "$users"
    done < /proc/modules
    end 0
else
    end 1
fi

begin pci_drivers "ls /sys/bus/pci/drivers"
if [ -d /sys/bus/pci/drivers ]; then names /sys/bus/pci/drivers; end 0; else end 1; fi

begin parameters "/sys/module/*/parameters"
for name in vfio_iommu_type1/allow_unsafe_interrupts vfio_pci/disable_idle_d3 vfio_pci/disable_vga kvm/ignore_msrs; do
    say "$name" "/sys/module/${name%/*}/parameters/${name#*/}"
done
end 0

begin available "/lib/modules/$release"
if [ -d "/lib/modules/$release" ]; then
    printf 'directory yes\n'
    for list in modules.dep modules.builtin; do
        if [ -r "/lib/modules/$release/$list" ] && have grep; then
            grep -oE '^[^:]*/(vfio|vfio-pci|vfio-pci-core|vfio_pci|vfio_pci_core|vfio_iommu_type1|vfio_virqfd|nouveau|nvidia|nvidia-drm|nova_core|i915|xe|amdgpu|radeon|snd-hda-intel|xhci-pci|i2c-nvidia-gpu)\.ko' \
                "/lib/modules/$release/$list" | quote
        fi
    done
    end 0
else
    printf 'directory no\n'
    end 0
fi

begin modprobe "modprobe -c"
if have modprobe && have grep; then
    { modprobe -c 2>/dev/null; printf 'status %s\n' "$?"; } |
        grep -E '^(status|options|softdep|blacklist|install) ' | quote
    end 0
else
    end 127
fi

begin modprobe_files "/etc/modprobe.d"
text /etc/modprobe.d/*
mtimes /etc/modprobe.d/*
end 0

begin modules_load_files "/etc/modules, /etc/modules-load.d, /etc/initramfs-tools/modules"
text /etc/modules /etc/modules-load.d/*.conf /etc/initramfs-tools/modules
end 0

begin driverctl_files "/etc/driverctl.d"
text /etc/driverctl.d/*
end 0

begin initramfs "lsinitramfs /boot/initrd.img-$release"
initrd=/boot/initrd.img-$release
if [ -e "$initrd" ]; then
    printf 'path %s\n' "$initrd"
    mtimes "$initrd"
    if have lsinitramfs && have grep && [ -r "$initrd" ]; then
        { lsinitramfs "$initrd" 2>/dev/null; printf 'status %s\n' "$?"; } |
            grep -E '^status |modprobe\.d/|vfio|driverctl|scripts/init-(top|premount)/' | quote
        end 0
    else
        end 127
    fi
else
    end 1
fi

# Lines are kept once: a flood of one message is one line. `-o cat` has no time stamps.
log_filter() {
    grep -E -i 'labproof_status|linux version|DMAR|AMD-Vi|iommu|vfio|remapping|can.t reserve|not ready|power state|stuck in D3|AER:|PCIe Bus Error|IO_PAGE_FAULT|nouveau|nvidia|NVRM|out of memory|oom-kill|vfio_virqfd' |
        { if have awk; then awk '!seen[$0]++'; else while IFS= read -r line; do printf '%s\n' "$line"; done; fi; } | quote
}
status=127
begin journal "journalctl -k -b -o cat"
if have journalctl && have grep; then
    { journalctl -k -b -o cat --no-pager -q 2>/dev/null; printf 'labproof_status %s\n' "$?"; } | log_filter
    status=0
fi
end $status
begin dmesg "dmesg"
status=127
if have dmesg && have grep; then
    { dmesg 2>/dev/null; printf 'labproof_status %s\n' "$?"; } | log_filter
    status=0
fi
end $status
begin iomem "/proc/iomem"
if [ -r /proc/iomem ]; then
    first=yes
    while IFS= read -r line; do
        if [ $first = yes ]; then printf '|%s\n' "$line"; first=no; fi
        case $line in
            *BOOTFB* | *[sS]implefb* | *simple-framebuffer* | *efifb* | *vesafb*) printf '|%s\n' "$line" ;;
        esac
    done < /proc/iomem
    end 0
else
    end 1
fi

begin vfio_nodes "ls /dev/vfio"
names /dev/vfio
end 0

# pid PID VMID: one running QEMU; arguments are shown only where they name vfio, the rest may hold secrets.
pid() {
    [ -r "/proc/$1/cmdline" ] || return 0
    printf 'pid %s\n' "$1"
    if [ -n "$2" ]; then printf 'vmid %s\n' "$2"; fi
    before=
    tr '\000' '\n' < "/proc/$1/cmdline" 2>/dev/null | while IFS= read -r argument || [ -n "$argument" ]; do
        case $before in
            -id) printf 'id %s\n' "$argument" ;;
            -name) printf 'name %s\n' "$argument" ;;
        esac
        case $argument in *vfio*) printf 'arg %s\n' "$argument" ;; esac
        before=$argument
    done
    ls -l "/proc/$1/fd" 2>/dev/null | while IFS= read -r line; do
        case $line in *' -> /dev/vfio/'* | *' -> /dev/iommu') printf 'fd %s\n' "${line##* -> }" ;; esac
    done
}
begin qemu "/proc/PID/cmdline, /proc/PID/fd, /run/qemu-server/*.pid"
seen=' '
for file in /run/qemu-server/*.pid; do
    if word "$file"; then
        vmid=${file##*/}
        seen="$seen$word "
        pid "$word" "${vmid%.pid}"
    fi
done
for entry in /proc/[0-9]*; do
    word "$entry/comm" || continue
    case $word in kvm | qemu-system-* | qemu-kvm) ;; *) continue ;; esac
    case $seen in *" ${entry##*/} "*) continue ;; esac
    pid "${entry##*/}" ''
done
end 0

begin reservations "/run/qemu-server/pci-id-reservations"
if [ -r /run/qemu-server/pci-id-reservations ]; then
    quote < /run/qemu-server/pci-id-reservations
    end 0
elif [ -e /run/qemu-server/pci-id-reservations ]; then
    end $denied
else
    end 1
fi

begin lxc "/etc/pve/lxc"
if [ -d /etc/pve ] && [ ! -x /etc/pve ]; then
    end $denied
elif [ -d /etc/pve/lxc ]; then
    for file in /etc/pve/lxc/*.conf; do
        [ -r "$file" ] || continue
        ctid=${file##*/}
        ctid=${ctid%.conf}
        running=no
        if [ -d "/sys/fs/cgroup/lxc/$ctid" ]; then running=yes; fi
        while IFS= read -r line || [ -n "$line" ]; do
            case $line in
                '['*) break ;; # snapshots follow
                '#'*) ;;
                *nvidia* | */dev/dri* | *dev/dri*) printf '%s %s %s\n' "$ctid" "$running" "$line" ;;
            esac
        done < "$file"
    done
    end 0
else
    end 1
fi

begin gpu_files "ls -l /proc/*/fd (/dev/nvidia*)"
if [ -e /dev/nvidiactl ] && have ls; then
    ls -l /proc/[0-9]*/fd 2>/dev/null | while IFS= read -r line; do
        case $line in
            /proc/*) holder=${line#/proc/}; holder=${holder%%/*} ;;
            *' -> /dev/nvidia'*) word "/proc/$holder/comm"; printf '%s %s %s\n' "$holder" "$word" "${line##* -> }" ;;
        esac
    done
fi
end 0

begin hugepages "/sys/kernel/mm/hugepages"
for entry in /sys/kernel/mm/hugepages/hugepages-*; do
    [ -d "$entry" ] || continue
    word "$entry/nr_hugepages"
    total=$word
    word "$entry/free_hugepages"
    printf '%s %s %s\n' "${entry##*hugepages-}" "$total" "$word"
done
end 0

begin finished "host_probe.sh"
end 0
