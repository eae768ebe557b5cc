package layer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// paxXattr starts the PAX record of an extended attribute.
const paxXattr = "SCHILY.xattr."

const capability = "security.capability"

// maxXattr is XATTR_LIST_MAX and XATTR_SIZE_MAX, limits.h.
const maxXattr = 64 << 10

// Rename maps the name of an extended attribute; false drops the attribute.
type Rename func(name string) (string, bool)

// Xattrs returns those extended attributes of name that a layer carries. It
// does not follow a symbolic link. File capabilities are in version 2: version
// 3 adds the user namespace in which they were set, which means nothing
// elsewhere. A nil rename keeps all names.
func Xattrs(name string, rename Rename) (map[string]string, error) {
	names, err := ListXattrs(name)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	attrs := make(map[string]string)
	for _, raw := range names {
		attr, ok := renamed(raw, rename)
		if !ok || !carried(attr) {
			continue
		}
		value, err := getXattr(name, raw)
		if errors.Is(err, unix.ENODATA) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reading the extended attribute %s of %q: %w", raw, name, err)
		}
		if attr == capability {
			value = capabilityV2(value)
		}
		attrs[attr] = string(value)
	}
	return attrs, nil
}

// ListXattrs returns the names of all extended attributes of name, none where
// the file system has no such thing. It does not follow a symbolic link.
func ListXattrs(name string) ([]string, error) {
	list, err := growing(func(buf []byte) (int, error) { return unix.Llistxattr(name, buf) })
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("listing the extended attributes of %q: %w", name, err)
	}
	if len(list) == 0 {
		return nil, nil
	}
	return strings.Split(strings.TrimSuffix(string(list), "\x00"), "\x00"), nil
}

func getXattr(name, attr string) ([]byte, error) {
	return growing(func(buf []byte) (int, error) { return unix.Lgetxattr(name, attr, buf) })
}

// growing calls read with a small buffer, then with one that is always enough.
func growing(read func([]byte) (int, error)) ([]byte, error) {
	buf := make([]byte, 256)
	n, err := read(buf)
	if errors.Is(err, unix.ERANGE) {
		buf = make([]byte, maxXattr)
		n, err = read(buf)
	}
	if err != nil {
		return nil, err
	}
	return buf[:n], nil
}

func renamed(name string, rename Rename) (string, bool) {
	if rename == nil {
		return name, true
	}
	return rename(name)
}

// carried tells what belongs to a file from what the machine that holds it
// adds: SELinux labels, IMA and EVM signatures, properties of a file system.
func carried(attr string) bool {
	switch attr {
	case capability, "system.posix_acl_access", "system.posix_acl_default":
		return true
	}
	return strings.HasPrefix(attr, "user.") || strings.HasPrefix(attr, "trusted.")
}

// capabilityV2 drops the root ID of a struct vfs_ns_cap_data, capability.h.
func capabilityV2(v []byte) []byte {
	const (
		revisionMask = 0xff000000
		revision2    = 0x02000000
		revision3    = 0x03000000
		size2, size3 = 20, 24
	)
	if len(v) != size3 {
		return v
	}
	magic := binary.LittleEndian.Uint32(v)
	if magic&revisionMask != revision3 {
		return v
	}
	v2 := append([]byte(nil), v[:size2]...)
	binary.LittleEndian.PutUint32(v2, magic&^revisionMask|revision2)
	return v2
}
