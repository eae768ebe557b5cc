package namespaces

import (
	"errors"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"
	"gotest.tools/v3/assert"

	"github.com/org/kaniko-multiarch/internal/sandbox"
)

func TestRefused(t *testing.T) {
	t.Parallel()
	sys := func(name, value string) fstest.MapFS {
		return fstest.MapFS{name: {Data: []byte(value + "\n")}}
	}
	for _, tc := range []struct {
		name      string
		form      Form
		err       error
		sys       fstest.MapFS
		what, fix string
	}{
		{"root", AsRoot, unix.EPERM, nil, "cannot create namespaces", "run as root with CAP_SYS_ADMIN"},
		{"all", AllIDs, unix.EPERM, nil, "cannot create a user namespace", "seccomp=unconfined), or use --isolation=inplace"},
		{"one", OneID, unix.EPERM, nil, "cannot create a user namespace", "seccomp=unconfined; Kubernetes"},
		{"debian", OneID, unix.EPERM, sys("kernel/unprivileged_userns_clone", "0"), "ordinary users may not", "sysctl -w kernel.unprivileged_userns_clone=1"},
		{"debian_allows", SubordinateIDs, unix.EPERM, sys("kernel/unprivileged_userns_clone", "1"), "cannot create a user namespace", "seccomp"},
		{"apparmor", SubordinateIDs, unix.EACCES, sys("kernel/apparmor_restrict_unprivileged_userns", "1"), "AppArmor keeps", "kernel.apparmor_restrict_unprivileged_userns=0"},
		{"none_at_all", OneID, unix.ENOSPC, sys("user/max_user_namespaces", "0"), "switched off", "sysctl -w user.max_user_namespaces=15000"},
		{"too_many", OneID, unix.ENOSPC, sys("user/max_user_namespaces", "9"), "more namespaces", "max_*_namespaces"},
		{"too_many_mounts", AsRoot, unix.ENOSPC, sys("user/max_user_namespaces", "0"), "more namespaces", "max_*_namespaces"},
		{"too_deep", OneID, unix.EUSERS, nil, "more namespaces", "max_*_namespaces"},
		{"kernel", OneID, unix.EINVAL, nil, "or the kernel has no user namespaces", "inplace"},
		{"qemu", AsRoot, unix.EINVAL, nil, "emulated", "architecture"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, ok := errors.AsType[*sandbox.UnsupportedError](refused(tc.form, tc.err, tc.sys))
			assert.Assert(t, ok)
			assert.ErrorContains(t, errors.New(got.What), tc.what)
			assert.ErrorContains(t, errors.New(got.Fix), tc.fix)
		})
	}
	other := errors.New("other")
	assert.Equal(t, refused(OneID, other, nil), other)
}
