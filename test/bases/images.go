package main

import (
	"fmt"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// standardPath is PATH as the official images set it.
const standardPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// applets are the busybox commands that get a link.
const applets = `[ adduser ash awk cat chgrp chmod chown cmp cp cut date dd df diff dirname du
	echo env expr false find grep gunzip gzip head hostname id install ln ls md5sum mkdir mkfifo
	mknod mktemp mv nc od printf ps pwd readlink realpath rm rmdir sed seq sh sha256sum sleep sort
	stat sync tail tar tee test touch tr true umask uname uniq vi wc wget which whoami xargs`

func busyboxImage(d *debs, p *v1.Platform) (v1.Image, error) {
	t := tree{}
	onlyBinary := func(path string) bool { return path != "usr/bin/busybox" }
	if err := d.unpack(t, []string{"busybox-static"}, onlyBinary); err != nil {
		return nil, err
	}
	// Docker's busybox has a real /bin, not Debian's link.
	if err := t.copyFile("usr/bin/busybox", "bin/busybox"); err != nil {
		return nil, err
	}
	delete(t, "usr/bin/busybox")
	for _, applet := range strings.Fields(applets) {
		t.link("bin/"+applet, "busybox")
	}
	for _, dir := range []string{"bin", "etc", "home", "usr", "usr/bin", "usr/sbin", "var"} {
		t.dir(dir, 0o755)
	}
	t.link("usr/bin/env", "../../bin/env")
	t.dir("root", 0o700)
	t.dir("tmp", 0o1777)
	t.file("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n"))
	t.file("etc/group", 0o644, []byte("root:x:0:\nwheel:x:10:\nnobody:x:65534:\n"))
	t.file("etc/shadow", 0o600, []byte("root:*:19518:0:99999:7:::\nnobody:*:19518:0:99999:7:::\n"))
	config := v1.Config{Env: []string{"PATH=" + standardPath}, Cmd: []string{"sh"}}
	return image(empty.Image, p, config, "busybox-static of Debian 12", t)
}

// debianPackages are a shell, the core utilities and user management, with the
// libraries they need.
var debianPackages = []string{
	"base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "diffutils", "findutils",
	"grep", "gzip", "hostname", "libacl1", "libattr1", "libaudit1", "libbz2-1.0", "libc-bin", "libc6",
	"libcap-ng0", "libcap2", "libcap2-bin", "libcrypt1", "libgcc-s1", "libgmp10",
	"libpam0g", "libpcre2-8-0", "libselinux1", "libsemanage2", "libsepol2", "libtinfo6", "login", "mawk",
	"passwd", "sed", "tar",
}

func debianImage(d *debs, p *v1.Platform) (v1.Image, error) {
	t := tree{}
	if err := d.unpack(t, debianPackages, documentation); err != nil {
		return nil, err
	}
	for _, dir := range merged {
		if _, ok := t["usr/"+dir]; ok {
			t.link(dir, "usr/"+dir)
		}
	}
	// What the packages' maintainer scripts would have done.
	for _, dir := range []string{
		"boot", "dev", "home", "media", "mnt", "opt", "proc", "run", "run/lock", "srv", "sys",
		"usr/local", "usr/local/bin", "usr/local/lib", "usr/local/sbin", "usr/local/share",
	} {
		t.dir(dir, 0o755)
	}
	t.dir("root", 0o700)
	t.dir("tmp", 0o1777)
	for from, to := range map[string]string{
		"usr/share/base-passwd/passwd.master": "etc/passwd",
		"usr/share/base-passwd/group.master":  "etc/group",
		"usr/share/base-files/profile":        "etc/profile",
		"usr/share/libc-bin/nsswitch.conf":    "etc/nsswitch.conf",
		"usr/share/base-files/dot.bashrc":     "root/.bashrc",
		"usr/share/base-files/dot.profile":    "root/.profile",
	} {
		if err := t.copyFile(from, to); err != nil {
			return nil, err
		}
	}
	shadowed(t)
	t.link("usr/bin/awk", "mawk")
	t.link("usr/bin/which", "which.debianutils")
	t.link("var/run", "/run")
	t.link("var/lock", "/run/lock")
	config := v1.Config{Env: []string{"PATH=" + standardPath}, Cmd: []string{"bash"}}
	return image(empty.Image, p, config, "packages of Debian 12", t)
}

// shadowed gives every user and group a locked shadow entry, dated at epoch.
func shadowed(t tree) {
	var users, groups strings.Builder
	days := epoch.Unix() / (24 * 60 * 60)
	passwd := strings.ReplaceAll(string(t["etc/passwd"].data), ":*:", ":x:")
	for line := range strings.Lines(passwd) {
		user, _, _ := strings.Cut(line, ":")
		fmt.Fprintf(&users, "%s:*:%d:0:99999:7:::\n", user, days)
	}
	for line := range strings.Lines(string(t["etc/group"].data)) {
		group, _, _ := strings.Cut(line, ":")
		fmt.Fprintf(&groups, "%s:*::\n", group)
	}
	t.file("etc/passwd", 0o644, []byte(passwd))
	t.file("etc/shadow", 0o640, []byte(users.String()))
	t.file("etc/gshadow", 0o640, []byte(groups.String()))
}

// documentation tells what an image does without.
func documentation(path string) bool {
	for _, dir := range []string{"doc", "info", "lintian", "locale", "man"} {
		if strings.HasPrefix(path, "usr/share/"+dir+"/") {
			return true
		}
	}
	return strings.Contains(path, "/gconv/")
}

func golangImage(debian v1.Image, d *debs) (v1.Image, error) {
	t, version, err := goTree()
	if err != nil {
		return nil, err
	}
	if err := d.certificates(t); err != nil {
		return nil, err
	}
	file, err := debian.ConfigFile()
	if err != nil {
		return nil, err
	}
	config := file.Config
	config.Env = []string{
		"PATH=/go/bin:/usr/local/go/bin:" + standardPath,
		"GOLANG_VERSION=" + version,
		"GOTOOLCHAIN=local",
		"GOPATH=/go",
	}
	config.WorkingDir = "/go"
	return image(debian, file.Platform(), config, "Go "+version, t)
}

// image is base with one layer more.
func image(base v1.Image, p *v1.Platform, config v1.Config, createdBy string, t tree) (v1.Image, error) {
	layer, err := t.layer()
	if err != nil {
		return nil, err
	}
	img := mutate.MediaType(base, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, types.OCIConfigJSON)
	img, err = mutate.Append(img, mutate.Addendum{
		Layer:     layer,
		MediaType: types.OCILayer,
		History:   v1.History{Created: v1.Time{Time: epoch}, CreatedBy: createdBy},
	})
	if err != nil {
		return nil, err
	}
	file, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Variant = p.OS, p.Architecture, p.Variant
	file.Created = v1.Time{Time: epoch}
	file.Config = config
	return mutate.ConfigFile(img, file)
}
