package graph

import (
	"time"

	"github.com/opencontainers/go-digest"
)

// ImageSource is the file tree of an image in a registry.
type ImageSource struct {
	// Ref is a full reference with a digest.
	Ref string
}

// LocalSource is a directory on the machine that asked for the build: the
// context or a named context.
type LocalSource struct {
	// Name is the name of the context; "context" is the main one.
	Name string
	// Include, Exclude and FollowPaths select files, in .dockerignore syntax.
	// An empty Include and FollowPaths select everything.
	Include, Exclude, FollowPaths []string
}

// HTTPSource is one downloaded file.
type HTTPSource struct {
	URL string
	// Checksum must match the content; empty means unchecked.
	Checksum digest.Digest
	// Filename is the name of the file in the tree; empty means that it comes
	// from the response or the URL.
	Filename string
}

// GitSource is the files of one commit of a repository.
type GitSource struct {
	// Remote is the repository's URL; it may hold credentials.
	Remote string
	// Ref is a branch, a tag, another reference or a commit; empty is the
	// default branch.
	Ref string
	// Subdir is the directory of the repository that is wanted; empty is all.
	Subdir string
	// Checksum is what the hash of the commit, or of its tag, must begin with;
	// empty means unchecked. ByCommit takes the commit of that hash, whatever Ref
	// is now.
	Checksum string
	ByCommit bool
	// KeepDir keeps the directory .git.
	KeepDir        bool
	SkipSubmodules bool
	// CommitTime gives all files the time of the commit.
	CommitTime bool
	// TokenSecret and HeaderSecret are the secrets to log in with, if there are.
	TokenSecret, HeaderSecret string
	// Agent is the SSH agent to log in with, KnownHosts the keys of the server in
	// the form of known_hosts(5); they do not count for what comes out.
	Agent      string `json:"-"`
	KnownHosts string `json:"-"`
	// InsecureTLS takes any certificate.
	InsecureTLS bool `json:",omitempty"`
}

// Merge stacks its inputs, the first at the bottom.
type Merge struct{}

// None is the Input of a mount or action that starts from an empty tree and
// the Output of one whose changes nobody sees.
const None = -1

// Exec runs one process.
type Exec struct {
	Args, Env  []string
	Cwd, User  string
	Hostname   string
	ExtraHosts []HostIP
	Ulimits    []Ulimit
	Network    Network
	// Insecure runs with all rights that the builder has.
	Insecure  bool `json:",omitempty"`
	Mounts    []Mount
	SecretEnv []SecretEnv
	// RemoveStubs removes the directories made for mount points, too, not just
	// their last element.
	RemoveStubs bool
	// ProxyEnv is added to the environment and does not count for the result:
	// what is downloaded is the same with and without a proxy.
	ProxyEnv []string `json:"-"`
}

// HostIP is a line of /etc/hosts.
type HostIP struct{ Host, IP string }

// Ulimit is a resource limit by its name in limits.conf(5).
type Ulimit struct {
	Name       string
	Soft, Hard int64
}

// Network is what a process sees of the network.
type Network int

const (
	NetworkDefault Network = iota
	NetworkHost
	NetworkNone
)

// MountType says what a mount shows.
type MountType int

const (
	MountBind MountType = iota
	MountCache
	MountTmpfs
	MountSecret
	MountSSH
)

// Mount is one mount of an Exec. The mount at "/" is the root.
type Mount struct {
	Type MountType
	// Input is an index of the vertex's inputs, or None.
	Input int
	// Selector is the path within the input that is mounted.
	Selector string
	Dest     string
	ReadOnly bool
	// Output is the index of the vertex's output that keeps the changes made
	// below this mount, or None.
	Output int
	// Cache is set for MountCache.
	Cache Cache
	// TmpfsSize is a limit in bytes for MountTmpfs; 0 means none.
	TmpfsSize int64
	// Secret is set for MountSecret and MountSSH.
	Secret Secret
}

// Cache identifies a directory that outlives the build.
type Cache struct {
	ID      string
	Sharing Sharing
}

// Sharing says what happens when two steps want one cache directory.
type Sharing int

const (
	SharingShared Sharing = iota
	SharingPrivate
	SharingLocked
)

// Secret describes the file that a secret or an agent's socket appears as.
type Secret struct {
	ID       string
	UID, GID int
	Mode     uint32
	Optional bool
}

// SecretEnv is a variable whose value is a secret.
type SecretEnv struct {
	ID, Name string
	Optional bool
}

// File changes file trees without running anything.
type File struct{ Actions []Action }

// Action is one change. Input and Source count the vertex's inputs first, then
// the actions before this one; None is an empty tree.
type Action struct {
	Input  int
	Source int
	// Output is the index of the vertex's output that this action's tree is,
	// or None for a tree that only a later action uses.
	Output int
	// Do is one of *Copy, *Mkfile, *Mkdir, *Remove and *Symlink.
	Do FileChange
}

// FileChange is one of *Copy, *Mkfile, *Mkdir, *Remove and *Symlink.
type FileChange interface{ fileChange() }

func (*Copy) fileChange()    {}
func (*Mkfile) fileChange()  {}
func (*Mkdir) fileChange()   {}
func (*Remove) fileChange()  {}
func (*Symlink) fileChange() {}

// Copy copies from the action's Source to its Input.
type Copy struct {
	Src, Dest string
	Owner     *Owner
	// Mode is nil to keep the mode; ModeString ("u=rwX,go=rX") goes before it.
	Mode       *uint32
	ModeString string
	// FollowSymlink resolves a symbolic link that Src itself is.
	FollowSymlink bool
	// ContentsOnly copies what is in a directory, not the directory.
	ContentsOnly bool
	// Unpack replaces a tar archive by what is in it.
	Unpack bool
	// MakeDest creates missing parents of Dest.
	MakeDest bool
	// Wildcard allows filepath.Match patterns in Src; AllowEmpty lets them
	// match nothing.
	Wildcard, AllowEmpty bool
	// Time is the time of all that is copied; nil keeps it.
	Time             *time.Time
	Include, Exclude []string
	// Required are paths that must have been copied when Include is set.
	Required []string
	// Replace replaces what is at Dest by a thing of another type.
	Replace bool
}

// Mkfile writes a file.
type Mkfile struct {
	Path  string
	Mode  uint32
	Data  []byte
	Owner *Owner
	Time  *time.Time
}

// Mkdir makes a directory.
type Mkdir struct {
	Path        string
	Mode        uint32
	MakeParents bool
	Owner       *Owner
	Time        *time.Time
}

// Remove removes a path.
type Remove struct {
	Path          string
	AllowNotFound bool
	Wildcard      bool
}

// Symlink makes a symbolic link at Path that points to Target.
type Symlink struct {
	Target, Path string
	Owner        *Owner
	Time         *time.Time
}

// Owner is a user and a group. A name is looked up in the tree of its input.
type Owner struct {
	User, Group *Identity
}

// Identity is a name in the passwd or group file of an input, or an ID.
type Identity struct {
	Name string
	// Input is where Name is looked up, counted as an Action's Input.
	Input int
	ID    int
}
