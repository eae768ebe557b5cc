package frontend

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/solver/pb"

	"github.com/org/kaniko-multiarch/internal/graph"
)

func convertExec(e *pb.ExecOp) (graph.Op, error) {
	if len(e.CdiDevices) > 0 {
		return nil, fmt.Errorf("device %s is not supported: a build step has no devices", e.CdiDevices[0].Name)
	}
	m := e.Meta
	x := &graph.Exec{
		Args:        m.Args,
		Env:         m.Env,
		Cwd:         m.Cwd,
		User:        m.User,
		Hostname:    m.Hostname,
		Insecure:    e.Security == pb.SecurityMode_INSECURE,
		RemoveStubs: m.RemoveMountStubsRecursive,
		ProxyEnv:    proxyEnv(m.ProxyEnv),
	}
	switch e.Network {
	case pb.NetMode_HOST:
		x.Network = graph.NetworkHost
	case pb.NetMode_NONE:
		x.Network = graph.NetworkNone
	}
	for _, h := range m.ExtraHosts {
		x.ExtraHosts = append(x.ExtraHosts, graph.HostIP{Host: h.Host, IP: h.IP})
	}
	for _, u := range m.Ulimit {
		x.Ulimits = append(x.Ulimits, graph.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	for _, s := range e.Secretenv {
		x.SecretEnv = append(x.SecretEnv, graph.SecretEnv{ID: s.ID, Name: s.Name, Optional: s.Optional})
	}
	for _, mount := range e.Mounts {
		m, err := convertMount(mount)
		if err != nil {
			return nil, err
		}
		x.Mounts = append(x.Mounts, m)
	}
	if !slices.ContainsFunc(x.Mounts, func(m graph.Mount) bool { return m.Dest == "/" }) {
		return nil, fmt.Errorf("%s has no root", strings.Join(m.Args, " "))
	}
	return x, nil
}

var (
	mountTypes = map[pb.MountType]graph.MountType{
		pb.MountType_BIND:   graph.MountBind,
		pb.MountType_CACHE:  graph.MountCache,
		pb.MountType_TMPFS:  graph.MountTmpfs,
		pb.MountType_SECRET: graph.MountSecret,
		pb.MountType_SSH:    graph.MountSSH,
	}
	sharings = map[pb.CacheSharingOpt]graph.Sharing{
		pb.CacheSharingOpt_SHARED:  graph.SharingShared,
		pb.CacheSharingOpt_PRIVATE: graph.SharingPrivate,
		pb.CacheSharingOpt_LOCKED:  graph.SharingLocked,
	}
)

func convertMount(m *pb.Mount) (graph.Mount, error) {
	kind, ok := mountTypes[m.MountType]
	if !ok {
		return graph.Mount{}, fmt.Errorf("mount type %s of %s is not supported", m.MountType, m.Dest)
	}
	out := graph.Mount{
		Type:      kind,
		Input:     int(m.Input),
		Selector:  m.Selector,
		Dest:      m.Dest,
		ReadOnly:  m.Readonly,
		Output:    int(m.Output),
		TmpfsSize: m.GetTmpfsOpt().GetSize(),
	}
	if kind != graph.MountBind {
		// LLB leaves the field of the others at 0, which is the root's.
		out.Output = graph.None
	}
	if c := m.CacheOpt; c != nil {
		out.Cache = graph.Cache{ID: c.ID, Sharing: sharings[c.Sharing]}
	}
	if s := m.SecretOpt; s != nil {
		out.Secret = graph.Secret{ID: s.ID, UID: int(s.Uid), GID: int(s.Gid), Mode: s.Mode, Optional: s.Optional}
	}
	if s := m.SSHOpt; s != nil {
		out.Secret = graph.Secret{ID: cmp.Or(s.ID, "default"), UID: int(s.Uid), GID: int(s.Gid), Mode: s.Mode, Optional: s.Optional}
	}
	return out, nil
}

func proxyEnv(p *pb.ProxyEnv) []string {
	if p == nil {
		return nil
	}
	var env []string
	for _, v := range []struct{ name, value string }{
		{"http_proxy", p.HttpProxy},
		{"https_proxy", p.HttpsProxy},
		{"ftp_proxy", p.FtpProxy},
		{"no_proxy", p.NoProxy},
		{"all_proxy", p.AllProxy},
	} {
		if v.value != "" {
			env = append(env, strings.ToUpper(v.name)+"="+v.value, v.name+"="+v.value)
		}
	}
	return env
}

func convertFile(f *pb.FileOp, inputs int) (graph.Op, error) {
	out := &graph.File{}
	for _, a := range f.Actions {
		do, err := convertAction(a)
		if err != nil {
			return nil, err
		}
		if int(a.Input) >= inputs+len(out.Actions) || int(a.SecondaryInput) >= inputs+len(out.Actions) {
			return nil, fmt.Errorf("action %d refers to one that comes later", len(out.Actions))
		}
		out.Actions = append(out.Actions, graph.Action{Input: int(a.Input), Source: int(a.SecondaryInput), Output: int(a.Output), Do: do})
	}
	return out, nil
}

func convertAction(a *pb.FileAction) (graph.FileChange, error) {
	switch v := a.Action.(type) {
	case *pb.FileAction_Copy:
		c := v.Copy
		out := &graph.Copy{
			Src: c.Src, Dest: c.Dest, Owner: convertOwner(c.Owner), ModeString: c.ModeStr,
			FollowSymlink: c.FollowSymlink, ContentsOnly: c.DirCopyContents, Unpack: c.AttemptUnpackDockerCompatibility,
			MakeDest: c.CreateDestPath, Wildcard: c.AllowWildcard, AllowEmpty: c.AllowEmptyWildcard, Time: convertTime(c.Timestamp),
			Include: c.IncludePatterns, Exclude: c.ExcludePatterns, Required: c.RequiredPaths, Replace: c.AlwaysReplaceExistingDestPaths,
		}
		if c.Mode >= 0 {
			mode := uint32(c.Mode)
			out.Mode = &mode
		}
		return out, nil
	case *pb.FileAction_Mkfile:
		m := v.Mkfile
		return &graph.Mkfile{Path: m.Path, Mode: uint32(m.Mode), Data: m.Data, Owner: convertOwner(m.Owner), Time: convertTime(m.Timestamp)}, nil
	case *pb.FileAction_Mkdir:
		m := v.Mkdir
		return &graph.Mkdir{Path: m.Path, Mode: uint32(m.Mode), MakeParents: m.MakeParents, Owner: convertOwner(m.Owner), Time: convertTime(m.Timestamp)}, nil
	case *pb.FileAction_Rm:
		r := v.Rm
		return &graph.Remove{Path: r.Path, AllowNotFound: r.AllowNotFound, Wildcard: r.AllowWildcard}, nil
	case *pb.FileAction_Symlink:
		s := v.Symlink
		return &graph.Symlink{Target: s.Oldpath, Path: s.Newpath, Owner: convertOwner(s.Owner), Time: convertTime(s.Timestamp)}, nil
	}
	return nil, fmt.Errorf("file action %T is not supported", a.Action)
}

// convertTime reads nanoseconds since 1970; -1 is unset.
func convertTime(ns int64) *time.Time {
	if ns == -1 {
		return nil
	}
	t := time.Unix(0, ns).UTC()
	return &t
}

func convertOwner(o *pb.ChownOpt) *graph.Owner {
	if o == nil {
		return nil
	}
	return &graph.Owner{User: convertIdentity(o.User), Group: convertIdentity(o.Group)}
}

func convertIdentity(u *pb.UserOpt) *graph.Identity {
	switch v := u.GetUser().(type) {
	case *pb.UserOpt_ByName:
		return &graph.Identity{Name: v.ByName.Name, Input: int(v.ByName.Input)}
	case *pb.UserOpt_ByID:
		return &graph.Identity{ID: int(v.ByID)}
	}
	return nil
}
