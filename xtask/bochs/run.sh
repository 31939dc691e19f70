#!/bin/sh
# Boots a kernel and an archive of `cargo xtask vm --pack-only` in Bochs (docs/testing.md), which starts from a CD.
# usage: run.sh BOCHS VMLINUZ INITRAMFS SECONDS   (ROOT: where bochsbios, vgabios, isolinux and syslinux-common are unpacked, if they are not installed)
set -eu
[ $# -eq 4 ] || { sed -n 's/^# usage: //p' "$0"; exit 2; }
bochs=$1 kernel=$2 initramfs=$3 seconds=$4
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
mkdir "$place/cd"
cp "${ROOT-}/usr/lib/ISOLINUX/isolinux.bin" "${ROOT-}/usr/lib/syslinux/modules/bios/ldlinux.c32" "$place/cd"
cp "$kernel" "$place/cd/vmlinuz"
lz4 -q -l "$initramfs" "$place/cd/initrd"
# No kernel IBT, five-level tables or ACPI: Bochs 3.0 emulates what they lead to wrongly, or not. reboot=t: a triple fault ends Bochs.
cat >"$place/cd/isolinux.cfg" <<END
DEFAULT snap
PROMPT 0
LABEL snap
 KERNEL /vmlinuz
 APPEND initrd=/initrd console=ttyS0 panic=-1 loglevel=4 nokaslr mitigations=off ibt=off no5lvl acpi=off reboot=t
END
xorriso -as mkisofs -quiet -o "$place/cd.iso" -b isolinux.bin -c boot.cat -no-emul-boot -boot-load-size 4 -boot-info-table "$place/cd"
# One second of the guest is so many instructions, so that time limits are not those of the emulator.
cat >"$place/bochsrc" <<END
display_library: nogui
megs: 2048
romimage: file=${ROOT-}/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=${ROOT-}/usr/share/vgabios/vgabios.bin
cpu: model=sapphire_rapids, count=1, ips=100000000, reset_on_triple_fault=0
ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
ata0-master: type=cdrom, path=$place/cd.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$place/serial
clock: sync=none
log: $place/log
panic: action=fatal
END
: >"$place/serial"
tail -n +1 -f "$place/serial" & tail=$!
timeout "$seconds" "$bochs" -q -f "$place/bochsrc" >"$place/out" 2>&1 </dev/null || true
sleep 1
kill "$tail"
grep -q '^vm: done' "$place/serial" && ! grep -q '^vm: end .*: [1-9]' "$place/serial"
