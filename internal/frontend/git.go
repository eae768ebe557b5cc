package frontend

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/frontend/dockerfile/dfgitutil"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/gitutil"
	"github.com/moby/buildkit/util/sshutil"

	"github.com/org/kaniko-multiarch/internal/graph"
)

// convertGit reads a git source: id is HOST/PATH#REF:SUBDIR.
func convertGit(id string, attrs map[string]string) (*graph.GitSource, error) {
	remote, fragment, _ := strings.Cut(id, "#")
	g := &graph.GitSource{}
	g.Ref, g.Subdir, _ = strings.Cut(fragment, ":")
	for _, key := range slices.Sorted(maps.Keys(attrs)) {
		value := attrs[key]
		switch key {
		case pb.AttrFullRemoteURL:
			remote = value
		case pb.AttrKeepGitDir:
			g.KeepDir = value == "true"
		case pb.AttrGitChecksum:
			g.Checksum = value
		case pb.AttrGitFetchByCommit:
			g.ByCommit = value == "true"
		case pb.AttrGitSkipSubmodules:
			g.SkipSubmodules = value == "true"
		case pb.AttrGitMTime:
			g.CommitTime = value == "commit"
		case pb.AttrAuthTokenSecret:
			g.TokenSecret = value
		case pb.AttrAuthHeaderSecret:
			g.HeaderSecret = value
		case pb.AttrMountSSHSock:
			g.Agent = value
		case pb.AttrKnownSSHHosts:
			g.KnownHosts = value
		case pb.AttrGitAdvice: // it is about how git prints
		default:
			return nil, fmt.Errorf("git source %s: attribute %s is not supported", id, key)
		}
	}
	if !gitutil.IsGitTransport(remote) {
		remote = "https://" + remote
	}
	g.Remote = remote
	return g, nil
}

// IsGitContext reports whether GitContext takes a location.
func IsGitContext(location string) bool {
	_, ok, _ := dfgitutil.ParseGitRef(location)
	return ok
}

// GitContext reads a context that is a repository, in BuildKit's form:
// https://HOST/REPO.git#REF:SUBDIR, git@HOST:REPO.git, git://HOST/REPO. ok is
// false when location is something else. It asks a server of ssh for its keys,
// and believes it, as BuildKit does.
func GitContext(ctx context.Context, location string) (_ *graph.GitSource, ok bool, _ error) {
	ref, ok, err := dfgitutil.ParseGitRef(location)
	if !ok {
		return nil, false, nil
	}
	if err != nil {
		return nil, true, err
	}
	g := &graph.GitSource{
		Remote: ref.Remote, Ref: ref.Ref, Subdir: ref.SubDir, Checksum: ref.Checksum, ByCommit: ref.FetchByCommit,
		KeepDir:        ref.KeepGitDir != nil && *ref.KeepGitDir,
		SkipSubmodules: ref.Submodules != nil && !*ref.Submodules,
		CommitTime:     ref.MTime == "commit",
		TokenSecret:    llb.GitAuthTokenKey, HeaderSecret: llb.GitAuthHeaderKey,
	}
	if ref.IndistinguishableFromLocal {
		g.Remote = "https://" + g.Remote
	}
	u, err := gitutil.ParseURL(g.Remote)
	if err != nil {
		return nil, true, err
	}
	if u.Scheme == gitutil.SSHProtocol {
		g.Agent = "default"
		g.KnownHosts = keysOf(ctx, u.Host)
	}
	return g, true, nil
}

// scanTime is how long a server has to show its keys.
const scanTime = 30 * time.Second

// keysOf are the keys of a server. One that does not answer has none; that fails
// when it is asked for the files.
func keysOf(ctx context.Context, host string) string {
	ctx, cancel := context.WithTimeout(ctx, scanTime)
	defer cancel()
	found := make(chan string, 1)
	go func() { // which nothing interrupts
		keys, _ := sshutil.SSHKeyScan(host)
		found <- keys
	}()
	select {
	case keys := <-found:
		return keys
	case <-ctx.Done():
		return ""
	}
}
