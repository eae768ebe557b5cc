package frontend

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// honoured are the fields of LLB that the conversion reads, or answers with a
// message of their own. All others are refused by name when they are set: what is
// not there must not be ignored in silence, the fields of newer versions included.
var honoured = map[protoreflect.FullName]string{
	"pb.Op":               "inputs exec source file build merge diff passthrough platform constraints",
	"pb.Input":            "digest index",
	"pb.Platform":         "Architecture OS Variant OSVersion",
	"pb.ExecOp":           "meta mounts network security secretenv cdiDevices",
	"pb.Meta":             "args env cwd user proxy_env extraHosts hostname ulimit removeMountStubsRecursive",
	"pb.HostIP":           "Host IP",
	"pb.Ulimit":           "Name Soft Hard",
	"pb.ProxyEnv":         "http_proxy https_proxy ftp_proxy no_proxy all_proxy",
	"pb.SecretEnv":        "ID name optional",
	"pb.CDIDevice":        "name optional",
	"pb.Mount":            "input selector dest output readonly mountType TmpfsOpt cacheOpt secretOpt SSHOpt contentCache",
	"pb.TmpfsOpt":         "size",
	"pb.CacheOpt":         "ID sharing",
	"pb.SecretOpt":        "ID uid gid mode optional",
	"pb.SSHOpt":           "ID uid gid mode optional",
	"pb.SourceOp":         "identifier attrs",
	"pb.FileOp":           "actions",
	"pb.FileAction":       "input secondaryInput output copy mkfile mkdir rm symlink",
	"pb.FileActionCopy":   "src dest owner mode followSymlink dirCopyContents attemptUnpackDockerCompatibility createDestPath allowWildcard allowEmptyWildcard timestamp include_patterns exclude_patterns alwaysReplaceExistingDestPaths modeStr required_paths",
	"pb.FileActionMkFile": "path mode data owner timestamp",
	"pb.FileActionMkDir":  "path mode makeParents owner timestamp",
	// Rm and Symlink come from no Dockerfile; they cost nothing.
	"pb.FileActionRm":      "path allowNotFound allowWildcard",
	"pb.FileActionSymlink": "oldpath newpath owner timestamp",
	"pb.ChownOpt":          "user group",
	"pb.UserOpt":           "byName byID",
	"pb.NamedUserOpt":      "name input",
	"pb.MergeOp":           "inputs",
	"pb.MergeInput":        "input",
}

// whole are operations that are refused as such: what is in them does not matter.
var whole = []protoreflect.FullName{"pb.BuildOp", "pb.DiffOp", "pb.PassthroughOp"}

// hints are fields that say which worker may run an operation: there is one.
var hints = []protoreflect.FullName{"pb.WorkerConstraints"}

// refuseUnknown is an error if something is set in m, or below it, that is not
// honoured.
func refuseUnknown(m protoreflect.Message) error {
	name := m.Descriptor().FullName()
	if slices.Contains(whole, name) || slices.Contains(hints, name) {
		return nil
	}
	if len(m.GetUnknown()) > 0 {
		return fmt.Errorf("%s has fields that this version does not know", name)
	}
	var errs []error
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		errs = append(errs, refuseField(f, v))
		return true
	})
	return errors.Join(errs...)
}

func refuseField(f protoreflect.FieldDescriptor, v protoreflect.Value) error {
	if !slices.Contains(strings.Fields(honoured[f.Parent().FullName()]), string(f.Name())) {
		return fmt.Errorf("%s is not supported: no Dockerfile of the built-in syntax sets it", f.FullName())
	}
	switch {
	case f.Kind() == protoreflect.EnumKind:
		if f.Enum().Values().ByNumber(v.Enum()) == nil {
			return fmt.Errorf("%s %d is not supported", f.FullName(), v.Enum())
		}
	case f.Kind() != protoreflect.MessageKind || f.IsMap():
	case f.IsList():
		for i := range v.List().Len() {
			if err := refuseUnknown(v.List().Get(i).Message()); err != nil {
				return err
			}
		}
	default:
		return refuseUnknown(v.Message())
	}
	return nil
}

// refuseAttributes is an error if a source has an attribute that is not known.
func refuseAttributes(identifier string, attrs map[string]string, known ...string) error {
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		if !slices.Contains(known, name) {
			return fmt.Errorf("%s: attribute %s is not supported", identifier, name)
		}
	}
	return nil
}
