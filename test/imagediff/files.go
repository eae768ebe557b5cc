package imagediff

import (
	"archive/tar"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// kinds are the names of tar's type flags.
var kinds = map[byte]string{
	tar.TypeReg: "file", tar.TypeDir: "directory", tar.TypeSymlink: "symlink",
	tar.TypeChar: "character device", tar.TypeBlock: "block device", tar.TypeFifo: "fifo",
}

// trees compares two file trees.
func (r *report) trees(a, b tree, o Options) {
	groupsA, groupsB := a.linkGroups(), b.linkGroups()
	names := maps.Clone(a)
	maps.Copy(names, b)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		fa, fb := a[name], b[name]
		switch {
		case fb == nil:
			r.add(name, "exists only in the first")
		case fa == nil:
			r.add(name, "exists only in the second")
		case fa.kind != fb.kind:
			r.differ(name+": type", kinds[fa.kind], kinds[fb.kind])
		default:
			r.files(name, fa, fb, o)
			r.differ(name+": hard links", groupsA[fa], groupsB[fb])
		}
	}
}

// files compares two files of one type.
func (r *report) files(name string, a, b *file, o Options) {
	r.differ(name+": mode", fmt.Sprintf("%04o", a.mode), fmt.Sprintf("%04o", b.mode))
	r.differ(name+": uid", a.uid, b.uid)
	r.differ(name+": gid", a.gid, b.gid)
	r.differ(name+": size", a.size, b.size)
	r.differ(name+": sha256", a.sum, b.sum)
	r.differ(name+": target", a.target, b.target)
	if a.kind == tar.TypeChar || a.kind == tar.TypeBlock {
		r.differ(name+": device", fmt.Sprint(a.major, ":", a.minor), fmt.Sprint(b.major, ":", b.minor))
	}
	attributes := maps.Clone(a.xattrs)
	maps.Copy(attributes, b.xattrs)
	for _, key := range slices.Sorted(maps.Keys(attributes)) {
		va, inA := a.xattrs[key]
		vb, inB := b.xattrs[key]
		r.differ(name+": xattr "+key, value(va, inA), value(vb, inB))
	}
	ta, tb := o.times(a.modified, b.modified, a.kind == tar.TypeDir)
	r.differ(name+": modified", ta, tb)
}

// linkGroups gives each file with several names their sorted list.
func (t tree) linkGroups() map[*file]string {
	names := map[*file][]string{}
	for _, name := range slices.Sorted(maps.Keys(t)) {
		names[t[name]] = append(names[t[name]], name)
	}
	groups := map[*file]string{}
	for f, all := range names {
		if len(all) > 1 {
			groups[f] = strings.Join(all, " ")
		}
	}
	return groups
}

func value(s string, there bool) string {
	if !there {
		return "none"
	}
	return fmt.Sprintf("%q", s)
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }
