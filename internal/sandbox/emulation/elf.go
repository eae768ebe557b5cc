package emulation

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"encoding/hex"
	"strings"

	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// probe is a program whose only act is exit(0).
type probe struct {
	machine elf.Machine
	order   binary.ByteOrder
	flags   uint32
	// code is in memory order.
	code []byte
	// wide means 64 bits.
	wide bool
}

// probeFor returns the program for a platform. System call numbers are those of
// the kernel's table for each architecture.
func probeFor(p ocispecs.Platform) (probe, bool) {
	le, be := binary.LittleEndian, binary.BigEndian
	const r2 = 0x80000000 // EF_MIPS_ARCH_64R2
	switch p.Architecture {
	case "amd64": // xor edi,edi; mov eax,60; syscall
		return probe{elf.EM_X86_64, le, 0, code("31ff b83c000000 0f05"), true}, true
	case "386": // xor ebx,ebx; mov eax,1; int 0x80
		return probe{elf.EM_386, le, 0, code("31db b801000000 cd80"), false}, true
	case "arm64": // mov x0,#0; mov x8,#93; svc #0
		return probe{elf.EM_AARCH64, le, 0, code("000080d2 a80b80d2 010000d4"), true}, true
	case "arm": // movw r0,#0 (ARMv7 only) or mov r0,#0; mov r7,#1; svc #0
		first := "000000e3"
		if v := p.Variant; v == "v5" || v == "v6" {
			first = "0000a0e3"
		}
		return probe{elf.EM_ARM, le, 0x05000000, code(first + "0170a0e3 000000ef"), false}, true
	case "riscv64": // li a0,0; li a7,93; ecall
		return probe{elf.EM_RISCV, le, 0, code("13050000 9308d005 73000000"), true}, true
	case "s390x": // lghi %r2,0; svc 1
		return probe{elf.EM_S390, be, 0, code("a7290000 0a01"), true}, true
	case "ppc64le": // li r3,0; li r0,1; sc
		return probe{elf.EM_PPC64, le, 2, code("00006038 01000038 02000044"), true}, true
	case "ppc64":
		return probe{elf.EM_PPC64, be, 2, code("38600000 38000001 44000002"), true}, true
	case "mips64le": // li a0,0; li v0,5058; syscall
		return probe{elf.EM_MIPS, le, r2, code("00000424 c2130224 0c000000"), true}, true
	case "mips64":
		return probe{elf.EM_MIPS, be, r2, code("24040000 240213c2 0000000c"), true}, true
	case "loong64": // li.w a0,0; li.w a7,93; syscall 0
		return probe{elf.EM_LOONGARCH, le, 0x43, code("04008002 0b748103 00002b00"), true}, true
	}
	return probe{}, false
}

// architectureOf names what an ELF file is built for, as Go does, from its
// first bytes. ok is false for another kind of file, the name "" for a machine
// that has no probe.
func architectureOf(head []byte) (arch string, ok bool) {
	if len(head) < 20 || string(head[:4]) != elf.ELFMAG {
		return "", false
	}
	var order binary.ByteOrder = binary.LittleEndian
	if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	wide := elf.Class(head[elf.EI_CLASS]) == elf.ELFCLASS64
	for _, arch := range []string{"amd64", "386", "arm64", "arm", "riscv64", "s390x", "ppc64le", "ppc64", "mips64le", "mips64", "loong64"} {
		p, _ := probeFor(ocispecs.Platform{Architecture: arch})
		if uint16(p.machine) == order.Uint16(head[18:]) && p.order == order && p.wide == wide {
			return arch, true
		}
	}
	return "", true
}

// file returns a static executable of one segment that holds the headers and
// the code.
func (p probe) file() []byte {
	const base = 0x400000
	var b bytes.Buffer
	ident := [elf.EI_NIDENT]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS32), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT)}
	if p.order == binary.BigEndian {
		ident[elf.EI_DATA] = byte(elf.ELFDATA2MSB)
	}
	rx := uint32(elf.PF_R | elf.PF_X)
	// Writing to a bytes.Buffer values of fixed size cannot fail.
	if p.wide {
		ident[elf.EI_CLASS] = byte(elf.ELFCLASS64)
		const headers = 64 + 56
		size := uint64(headers + len(p.code))
		_ = binary.Write(&b, p.order, elf.Header64{Ident: ident, Type: uint16(elf.ET_EXEC), Machine: uint16(p.machine), Version: 1,
			Entry: base + headers, Phoff: 64, Flags: p.flags, Ehsize: 64, Phentsize: 56, Phnum: 1})
		_ = binary.Write(&b, p.order, elf.Prog64{Type: uint32(elf.PT_LOAD), Flags: rx, Vaddr: base, Paddr: base,
			Filesz: size, Memsz: size, Align: 0x10000})
	} else {
		const headers = 52 + 32
		size := uint32(headers + len(p.code))
		_ = binary.Write(&b, p.order, elf.Header32{Ident: ident, Type: uint16(elf.ET_EXEC), Machine: uint16(p.machine), Version: 1,
			Entry: base + headers, Phoff: 52, Flags: p.flags, Ehsize: 52, Phentsize: 32, Phnum: 1})
		_ = binary.Write(&b, p.order, elf.Prog32{Type: uint32(elf.PT_LOAD), Flags: rx, Vaddr: base, Paddr: base,
			Filesz: size, Memsz: size, Align: 0x10000})
	}
	b.Write(p.code)
	return b.Bytes()
}

// code decodes a constant of this file.
func code(digits string) []byte {
	out, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
	if err != nil {
		panic("emulation: " + err.Error())
	}
	return out
}
