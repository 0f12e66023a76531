"""Programs of a Proxmox host that cannot be the machine's own: small sh scripts over derived texts.

Readers print files below HOME. Writers (update-grub, update-initramfs, proxmox-boot-tool refresh, reboot, modprobe of a
module, qm start ...) append a line to the request file, which the server applies to the world after the command.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from labproof.simlab.host.machine import Host
from labproof.simlab.host.tree import Tree

HOME = "/opt/labproof-sim"
REQUESTS = "/run/labproof-sim/requests"

_REQUEST = f"""request() {{ printf '%s\\n' "$*" >> {REQUESTS}; }}
"""

_JOURNALCTL = """scope=all form=short lines= unit= grep=
while [ $# -gt 0 ]; do
  case $1 in
    -k|--dmesg) scope=kernel ;;
    -o) form=$2; shift ;;
    --output=*) form=${1#*=} ;;
    -o*) form=${1#-o} ;;
    -n) lines=$2; shift ;;
    -n*) lines=${1#-n} ;;
    --lines=*) lines=${1#*=} ;;
    -t|--identifier|-u|--unit) unit=$2; shift ;;
    --unit=*|--identifier=*) unit=${1#*=} ;;
    -g|--grep) grep=$2; shift ;;
    --grep=*) grep=${1#*=} ;;
    -S|-U|-p|--since|--until|--priority) shift ;;
    -b|--boot|-kb|-bk) case $1 in -kb|-bk) scope=kernel ;; esac
      case ${2-} in ''|-[a-zA-Z]*|--*) ;; 0|-0) shift ;; *)
        echo "Data from the specified boot ($2) is not available: No such boot ID in journal" >&2; exit 1 ;; esac ;;
  esac
  shift
done
case $form in cat|short-monotonic) ;; *) form=short ;; esac
[ -n "$unit" ] && scope=unit.${unit%.service}
text=$(cat HOME/journal/$scope.$form 2>/dev/null)
[ -n "$grep" ] && text=$(printf '%s\\n' "$text" | grep -E -- "$grep")
[ -n "$lines" ] && text=$(printf '%s\\n' "$text" | tail -n "$lines")
[ -n "$text" ] || { echo "-- No entries --"; exit 0; }
printf '%s\\n' "$text"
"""

_LSPCI = """domain= form=plain kernel= machine= slot= device= verbose=
while [ $# -gt 0 ]; do
  case $1 in
    -s) slot=$2; shift ;;
    -d) device=$2; shift ;;
    -s*) slot=${1#-s} ;;
    -d*) device=${1#-d} ;;
    -*) rest=${1#-}
      while [ -n "$rest" ]; do
        letter=${rest%"${rest#?}"}; rest=${rest#?}
        case $letter in
          D) domain=1 ;; k) kernel=1 ;; m) machine=1 ;; v) verbose=1 ;;
          n) if [ $form = n ]; then form=nn; else [ $form = nn ] || form=n; fi ;;
          s) slot=$rest; [ -n "$slot" ] || { slot=$2; shift; }; rest= ;;
          d) device=$rest; [ -n "$device" ] || { device=$2; shift; }; rest= ;;
        esac
      done ;;
  esac
  shift
done
for folder in HOME/lspci/*; do
  address=${folder##*/}; short=${address#0000:}
  case $slot in
    '') ;;
    *:*:*.*|*:*.*) [ "$slot" = "$address" ] || [ "$slot" = "$short" ] || continue ;;
    *:*) case $address in "$slot".*|"0000:$slot".*|*:"$slot"*) ;; *) continue ;; esac ;;
  esac
  if [ -n "$device" ]; then
    read -r ids < $folder/ids
    vendor=${device%%:*}; rest=${device#*:}; number=${rest%%:*}
    [ -z "$vendor" ] || [ "$vendor" = "${ids%%:*}" ] || continue
    other=${ids#*:}; [ -z "$number" ] || [ "$number" = "${other%%:*}" ] || continue
  fi
  [ -n "$domain" ] && short=$address
  if [ -n "$machine" ] && [ -n "$verbose" ]; then
    printf 'Slot:\\t%s\\n' "$short"
    cat $folder/machine${kernel:+-k}.$form
    echo
  else
    printf '%s ' "$short"; cat $folder/$form
    if [ -n "$kernel$verbose" ]; then cat $folder/subsystem.$form $folder/kernel; fi
    [ -n "$verbose" ] && echo
  fi
done
exit 0
"""

_MODPROBE = """mode=load show= use_blacklist= name= parameters=
for word; do
  case $word in
    -c|--showconfig|--show-config) mode=config ;;
    -n|--dry-run|--show) mode=dry ;;
    -r|--remove) mode=remove ;;
    -v|--verbose) show=1 ;; -b|--use-blacklist) use_blacklist=1 ;;
    -nv|-vn) mode=dry show=1 ;; -nvb|-vnb|-bnv) mode=dry show=1 use_blacklist=1 ;;
    -D|--show-depends) mode=dry show=1 ;;
    -*) ;;
    *) if [ -z "$name" ]; then name=$(printf %s "$word" | tr - _); else parameters="$parameters $word"; fi ;;
  esac
done
[ $mode = config ] && exec cat HOME/modprobe.config
[ -n "$name" ] || { echo "modprobe: ERROR: missing parameters. See -h." >&2; exit 1; }
if ! grep -qx "$name" HOME/modules.available; then
  echo "modprobe: FATAL: Module $name not found in directory /lib/modules/KERNEL" >&2; exit 1
fi
if [ -n "$use_blacklist" ] && grep -qx "blacklist $name" HOME/modprobe.config; then exit 0; fi
case $mode in
  dry) [ -z "$show" ] || echo "insmod /lib/modules/KERNEL/kernel/drivers/$name.ko$parameters" ;;
  *) request modprobe $mode "$name" ;;
esac
exit 0
"""

#: The kernel's own modules.softdep, as far as it names modules that matter here (recorded, captures/host/guest).
_MODULES_SOFTDEP = "softdep vfio post: vfio_iommu_type1 vfio_iommu_spapr_tce\n"
_ALIAS = "alias pci:v000010DEd*sv*sd*bc03sc02i00* nouveau\n"

_SYSTEMCTL = """verb= unit=
for word; do case $word in -*) ;; *) if [ -z "$verb" ]; then verb=$word; else unit=$word; fi ;; esac; done
case $verb in
  reboot|poweroff|halt|kexec) request $verb ;;
  is-system-running) echo running ;;
  is-active) if grep -qx "${unit%.service}" HOME/services; then echo active; else echo inactive; exit 3; fi ;;
  is-enabled) if grep -qx "${unit%.service}" HOME/services; then echo enabled; else echo disabled; exit 1; fi ;;
  show) echo "ActiveState=active" ;;
  *) exit 0 ;;
esac
"""

_QM = """verb=${1-} vmid=${2-}
known() {
  [ -f "/etc/pve/qemu-server/$vmid.conf" ] && return
  echo "Configuration file 'nodes/NODE/qemu-server/$vmid.conf' does not exist" >&2
  exit 2
}
case $verb in
  list) cat HOME/qm/list ;;
  config) known; case " $* " in *" --current "*) cat HOME/qm/$vmid.current ;; *) cat HOME/qm/$vmid.config ;; esac ;;
  pending) known; cat HOME/qm/$vmid.pending ;;
  status) known; cat HOME/qm/$vmid.status ;;
  showcmd) known; cat HOME/qm/$vmid.showcmd ;;
  start|stop|shutdown) known; request qm $verb "$vmid" ;;
  *) echo "ERROR: unknown command 'qm $verb'" >&2; exit 255 ;;
esac
"""

_BOOT_TOOL = """case "${1-} ${2-}" in
  'status '*) cat HOME/boot-tool.status; cat HOME/boot-tool.error >&2; exit $(cat HOME/boot-tool.rc) ;;
  'kernel list') cat HOME/boot-tool.kernels ;;
  'kernel pin'|'kernel unpin') request kernel-$2 "${3-}" ;;
  'refresh '*) request refresh; echo "Running hook script 'proxmox-auto-removal'.."
    echo "Running hook script 'zz-proxmox-boot'.." ;;
  *) echo "USAGE: proxmox-boot-tool <commands> [ARGS]" >&2; exit 1 ;;
esac
"""

_UPDATE_GRUB = """request update-grub
echo "Generating grub configuration file ..."
echo "Found linux image: /boot/vmlinuz-KERNEL"
echo "Found initrd image: /boot/initrd.img-KERNEL"
echo "done"
"""

_UPDATE_INITRAMFS = """request update-initramfs
for image in /boot/initrd.img-*; do echo "update-initramfs: Generating $image"; done
"""

_LSINITRAMFS = """long= image=
for word; do case $word in -l) long=1 ;; -*) ;; *) image=$word ;; esac; done
[ -f "$image" ] || { echo "W: $image: No such file" >&2; exit 1; }
if [ -n "$long" ]; then cat HOME/initramfs.long; else cat HOME/initramfs.list; fi
"""

_UNMKINITRAMFS = """image= target=
for word; do case $word in -*) ;; *) if [ -z "$image" ]; then image=$word; else target=$word; fi ;; esac; done
[ -f "$image" ] && [ -n "$target" ] || { echo "Usage: unmkinitramfs [-v] initramfs-file directory" >&2; exit 1; }
mkdir -p "$target/main" && cp -a HOME/initramfs/. "$target/main/"
"""

_UNAME = """show=
for word; do
  case $word in
    -r|--kernel-release) show="$show KERNEL" ;;
    -n|--nodename) show="$show NODE" ;;
    -s|--kernel-name) show="$show Linux" ;;
    -m|--machine) show="$show x86_64" ;;
    -v|--kernel-version) show="$show #1 SMP PREEMPT_DYNAMIC PMX" ;;
    -o|--operating-system) show="$show GNU/Linux" ;;
    -a|--all) show=" Linux NODE KERNEL #1 SMP PREEMPT_DYNAMIC PMX KERNEL x86_64 GNU/Linux" ;;
    -sr) show=" Linux KERNEL" ;; -rm) show=" KERNEL x86_64" ;;
    *) echo "uname: unrecognized option '$word'" >&2; exit 1 ;;
  esac
done
echo "${show# }" | sed 's/^$/Linux/'
"""

_PVESH = """[ "${1-}" = get ] || { echo "ERROR: unknown command 'pvesh ${1-}'" >&2; exit 255; }
case ${2-} in
  /version|version) cat HOME/pvesh.version ;;
  *) echo "No '$1' handler defined for '${2-}'" >&2; exit 2 ;;
esac
"""

_DMESG = """cat HOME/journal/kernel.dmesg
"""

_LSMOD = """printf 'Module                  Size  Used by\\n'
while read -r name size count by rest; do
  [ "$by" = - ] && by=
  printf '%-19s %8s  %s %s\\n' "$name" "$size" "$count" "${by%,}"
done < /proc/modules
"""

SCRIPTS = {
    "lsmod": _LSMOD,
    "journalctl": _JOURNALCTL, "lspci": _LSPCI, "modprobe": _MODPROBE, "systemctl": _SYSTEMCTL, "qm": _QM,
    "proxmox-boot-tool": _BOOT_TOOL,
    "update-grub": _UPDATE_GRUB, "update-initramfs": _UPDATE_INITRAMFS, "lsinitramfs": _LSINITRAMFS,
    "unmkinitramfs": _UNMKINITRAMFS,
    "uname": _UNAME, "pvesh": _PVESH, "dmesg": _DMESG, "hostname": "echo NODE\n",
    "hostnamectl": "echo ' Static hostname: NODE'\n",
    "arch": "echo x86_64\n", "nproc": "grep -c ^processor /proc/cpuinfo\n",
    "dpkg-query": "case \" $* \" in *' pve-manager '*|*' proxmox-ve '*) [ -s HOME/dpkg ] && cat HOME/dpkg "
    "&& exit 0 ;; esac\n"
                  "echo 'dpkg-query: no packages found matching' >&2; exit 1\n",
    "pveversion": "cat HOME/pveversion\n", "efibootmgr": "cat HOME/efibootmgr; exit $(cat HOME/efibootmgr.rc)\n",
    "uptime": "read -r up idle < /proc/uptime; echo \" up ${up%.*} s\"\n", "who": "exit 0\n", "w": "exit 0\n",
    "ps": "for f in /proc/[0-9]*/cmdline; do [ -f $f ] && tr '\\0' ' ' < $f && echo; done; exit 0\n",
    "mount": "cat /proc/mounts\n",
    "sudo": "while :; do case ${1-} in -*) shift ;; *) break ;; esac; done; exec \"$@\"\n",
    "fuser": "exit 1\n", "lsblk": "ls /sys/block\n", "ip": "ls /sys/class/net\n",
}  # fmt: skip
SCRIPTS |= {name: f"request {name}\n" for name in ("reboot", "poweroff", "halt", "shutdown")}


def write(host: Host, tree: Tree, guests: Any) -> None:
    """Write the stand-ins and the texts they print."""
    for name, body in SCRIPTS.items():
        text = body.replace("HOME", HOME).replace("KERNEL", host.kernel).replace("NODE", host.hostname)
        tree.file(f"{HOME}/bin/{name}", f"#!/bin/sh\n{_REQUEST if 'request ' in text else ''}{text}", mode=0o755)
    pve = host.inputs.get("pve") or {}
    texts = {
        "modprobe.config": host.modprobe_now.printed() + _MODULES_SOFTDEP + _ALIAS,
        "modules.available": "".join(f"{m}\n" for m in _modules(host)),
        "services": "pve-cluster\npvedaemon\npveproxy\nssh\nqemu-server\npve-guests\n",
        "pveversion": f"pve-manager/{pve.get('version', '0')}/sim (running kernel: {host.kernel})\n",
        "dpkg": str(pve.get("version", "")),
        "pvesh.version": f'{{"release":"{pve.get("release")}","repoid":"sim","version":"{pve.get("version")}"}}\n',
    }
    _boot_tool(host, texts)
    _efi(host, texts)
    _initramfs(host, tree, texts)
    if guests is not None:
        _qm(host, guests, texts)
    for name, text in texts.items():
        tree.file(f"{HOME}/{name}", text)
    tree.folder(REQUESTS.rpartition("/")[0])


def _modules(host: Host, *, on_disk: bool = False) -> list[str]:
    known = {"vfio", "vfio_pci", "vfio_pci_core", "vfio_iommu_type1", "vfio_virqfd", "nouveau", "nvidia",
        "nvidiafb", "kvm",
             "kvm_intel", "kvm_amd", "i915", "ast", "snd_hda_intel", "xhci_pci", "ixgbe", "igb", "nvme", "ahci",
             "amdgpu", "radeon", "xe"}  # fmt: skip
    if host.inputs["kernel"].get("purged"):
        return []
    return sorted(m for m in known | set(host.drivers.loaded) if host.drivers.available(m, on_disk=on_disk))


def modules_on_disk(host: Host) -> list[str]:
    """Paths in modules.dep of the modules that matter here (file names with dashes, as the kernel has them)."""
    folders = {"vfio": "vfio", "vfio_pci": "vfio/pci", "vfio_pci_core": "vfio/pci", "nouveau": "gpu/drm/nouveau"}
    names = {
        "vfio_pci": "vfio-pci",
        "vfio_pci_core": "vfio-pci-core",
        "snd_hda_intel": "snd-hda-intel",
        "xhci_pci": "xhci-pci",
    }
    return [f"kernel/drivers/{folders.get(m, 'misc')}/{names.get(m, m)}.ko" for m in _modules(host, on_disk=True)]


def _boot_tool(host: Host, texts: dict[str, str]) -> None:
    boot, firmware = host.inputs["boot"], host.inputs["firmware"]
    installed = host.inputs["kernel"].get("installed", [host.kernel])
    mode = "uefi" if firmware.get("mode") == "efi" else "legacy bios"
    how = "uefi" if boot.get("loader") == "systemd-boot" else "grub"
    status = "Re-executing '/usr/sbin/proxmox-boot-tool' in new private mount namespace..\n"
    status += f"System currently booted with {mode}\n"
    if boot.get("esp_managed"):
        status += f"6A1E-2F3B is configured with: {how} (versions: {', '.join(installed)})\n"
    texts["boot-tool.status"] = status
    texts["boot-tool.error"] = "" if boot.get("esp_managed") else (
        "E: /etc/kernel/proxmox-boot-uuids does not exist.\n"
    )  # fmt: skip
    texts["boot-tool.rc"] = "0\n" if boot.get("esp_managed") else "1\n"
    pinned = host.inputs["kernel"].get("pinned")
    texts["boot-tool.kernels"] = (
        "Manually selected kernels:\nNone.\n\nAutomatically selected kernels:\n"
        + "".join(f"{release}\n" for release in installed)
        + (f"\nPinned kernel:\n{pinned}\n" if pinned else "")
    )


def _efi(host: Host, texts: dict[str, str]) -> None:
    if host.inputs["firmware"].get("mode") != "efi":
        texts["efibootmgr"], texts["efibootmgr.rc"] = "EFI variables are not supported on this system.\n", "2\n"
        return
    loader = host.inputs["boot"].get("loader")
    label, path = (
        ("Linux Boot Manager", "\\EFI\\systemd\\systemd-bootx64.efi") if loader == "systemd-boot"
        else ("proxmox", f"\\EFI\\proxmox\\{'shim' if host.inputs['firmware'].get('secureboot') else 'grub'}x64.efi")
    )  # fmt: skip
    texts["efibootmgr"] = (
        "BootCurrent: 0001\nTimeout: 1 seconds\nBootOrder: 0001\n"
        f"Boot0001* {label}\tHD(2,GPT,2f1e7c1a-9d0b-4c0f-8f5e-0c6d1f6a7b10,0x800,0x200000)/File({path})\n"
    )
    texts["efibootmgr.rc"] = "0\n"


def _initramfs(host: Host, tree: Tree, texts: dict[str, str]) -> None:
    held = host.files_then("in_initramfs")
    names = sorted(p.lstrip("/") for p in held if p.startswith("/etc/modprobe.d/") and p.endswith(".conf"))
    listing = [
        "bin",
        "etc",
        "etc/modprobe.d",
        *names,
        "init",
        "usr/lib/modprobe.d",
        "usr/lib/modules",
        f"usr/lib/modules/{host.kernel}",
    ]
    texts["initramfs.list"] = "".join(f"{name}\n" for name in listing)
    rows = []
    for name in listing:
        text = held.get(f"/{name}")
        entry = host.inputs["files"].get(f"/{name}") or {}
        at = host.booted_at - 30 * 86400 if "in_initramfs" in entry else host.changed_at(f"/{name}")
        stamp = dt.datetime.fromtimestamp(at, dt.UTC).strftime("%b %d %H:%M")
        kind = "-rw-r--r--   1" if text is not None else "drwxr-xr-x   2"
        rows.append(f"{kind} root     root     {len(text or ''):8d} {stamp} {name}\n")
        if text is not None:
            tree.file(f"{HOME}/initramfs/{name}", text)
    tree.folder(f"{HOME}/initramfs")
    texts["initramfs.long"] = "".join(rows)


def _qm(host: Host, guests: Any, texts: dict[str, str]) -> None:
    rows = ["      VMID NAME                 STATUS     MEM(MB)    BOOTDISK(GB) PID       \n"]
    for text in sorted(guests.vms, key=int):
        vmid = int(text)
        qemu = host.qemus.get(vmid)
        config, current, pending = guests.effective_config(vmid), guests.section(vmid), guests.pending(vmid)
        status = "running" if qemu else "stopped"
        rows.append(
            f"{vmid:>10} {config.get('name', ''):<20} {status:<10} {config.get('memory', 512):<10} "
            f"{'0.00':>12} {qemu.pid if qemu else 0:<10}\n"
        )
        texts[f"qm/{vmid}.config"] = "".join(f"{k}: {v}\n" for k, v in sorted(config.items()))
        texts[f"qm/{vmid}.current"] = "".join(f"{k}: {v}\n" for k, v in sorted(current.items()))
        texts[f"qm/{vmid}.status"] = f"status: {status}\n"
        texts[f"qm/{vmid}.pending"] = "".join(f"cur {k}: {v}\n" for k, v in sorted(current.items())) + "".join(
            f"del {k}\n" if v is False else f"new {k}: {v}\n" for k, v in sorted(pending.items())
        )
        texts[f"qm/{vmid}.showcmd"] = " ".join(qemu.argv) + "\n" if qemu else ""
    texts["qm/list"] = "".join(rows)
