package frontend

import (
	"slices"
	"strings"
	"testing"

	"github.com/moby/buildkit/solver/pb"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
)

// messages are all that an operation can hold, by name, each with a value of it
// in which nothing is set.
func messages(t *testing.T) map[protoreflect.FullName]protoreflect.Message {
	t.Helper()
	found := map[protoreflect.FullName]protoreflect.Message{}
	var visit func(m protoreflect.MessageDescriptor)
	visit = func(m protoreflect.MessageDescriptor) {
		if found[m.FullName()] != nil || slices.Contains(whole, m.FullName()) || slices.Contains(hints, m.FullName()) {
			return
		}
		kind, err := protoregistry.GlobalTypes.FindMessageByName(m.FullName())
		assert.NilError(t, err)
		found[m.FullName()] = kind.New()
		for i := range m.Fields().Len() {
			if f := m.Fields().Get(i); f.Kind() == protoreflect.MessageKind && !f.IsMap() {
				visit(f.Message())
			}
		}
	}
	visit((&pb.Op{}).ProtoReflect().Descriptor())
	return found
}

// Every field of every operation is honoured, or refused by its name. A new one
// of BuildKit's is refused; then this list says so.
func TestRefuseUnknown_all_fields(t *testing.T) {
	t.Parallel()
	var refused []string
	all := messages(t)
	for name, m := range all {
		fields := m.Descriptor().Fields()
		for _, known := range strings.Fields(honoured[name]) {
			assert.Check(t, fields.ByName(protoreflect.Name(known)) != nil, "%s has no field %s", name, known)
		}
		for i := range fields.Len() {
			f := fields.Get(i)
			set := m.New()
			set.Set(f, something(f, set))
			if err := refuseUnknown(set); err != nil {
				assert.Check(t, is.ErrorContains(err, string(f.FullName())))
				refused = append(refused, string(f.FullName()))
			}
		}
	}
	slices.Sort(refused)
	assert.Check(t, is.DeepEqual(refused, []string{
		"pb.Meta.cgroupParent", "pb.Meta.validExitCodes", "pb.Mount.resultID", "pb.Platform.OSFeatures",
	}))
	for name := range honoured {
		assert.Check(t, all[name] != nil, "there is no message %s", name)
	}
}

// something is a value of f that is not its default.
func something(f protoreflect.FieldDescriptor, in protoreflect.Message) protoreflect.Value {
	switch {
	case f.IsList():
		list := in.NewField(f).List()
		if f.Kind() == protoreflect.MessageKind {
			list.Append(list.NewElement())
		} else {
			list.Append(scalar(f))
		}
		return protoreflect.ValueOfList(list)
	case f.IsMap():
		m := in.NewField(f).Map()
		m.Set(protoreflect.ValueOfString("k").MapKey(), protoreflect.ValueOfString("v"))
		return protoreflect.ValueOfMap(m)
	case f.Kind() == protoreflect.MessageKind:
		return in.NewField(f)
	}
	return scalar(f)
}

func scalar(f protoreflect.FieldDescriptor) protoreflect.Value {
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(1)
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(1)
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(1)
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(1)
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte("x"))
	}
	return protoreflect.ValueOfString("x")
}

func TestConvertOp_refuses(t *testing.T) {
	t.Parallel()
	exec := func(change func(e *pb.ExecOp)) *pb.Op {
		e := &pb.ExecOp{Meta: &pb.Meta{Args: []string{"x"}}, Mounts: []*pb.Mount{{Dest: "/"}}}
		change(e)
		return &pb.Op{Op: &pb.Op_Exec{Exec: e}}
	}
	source := func(identifier, attr string) *pb.Op {
		return &pb.Op{Op: &pb.Op_Source{Source: &pb.SourceOp{Identifier: identifier, Attrs: map[string]string{attr: "1"}}}}
	}
	for name, tc := range map[string]struct {
		op   *pb.Op
		want string
	}{
		"none":              {&pb.Op{}, "operation <nil> is not supported"},
		"build":             {&pb.Op{Op: &pb.Op_Build{Build: &pb.BuildOp{Builder: 1}}}, "operation Build is not supported"},
		"diff":              {&pb.Op{Op: &pb.Op_Diff{Diff: &pb.DiffOp{}}}, "operation Diff is not supported"},
		"passthrough":       {&pb.Op{Op: &pb.Op_Passthrough{Passthrough: &pb.PassthroughOp{}}}, "operation Passthrough is not supported"},
		"cgroup_parent":     {exec(func(e *pb.ExecOp) { e.Meta.CgroupParent = "x" }), "pb.Meta.cgroupParent is not supported"},
		"exit_codes":        {exec(func(e *pb.ExecOp) { e.Meta.ValidExitCodes = []int32{3} }), "pb.Meta.validExitCodes is not supported"},
		"device":            {exec(func(e *pb.ExecOp) { e.CdiDevices = []*pb.CDIDevice{{Name: "vendor/gpu"}} }), "device vendor/gpu is not supported"},
		"network":           {exec(func(e *pb.ExecOp) { e.Network = 7 }), "pb.ExecOp.network 7 is not supported"},
		"security":          {exec(func(e *pb.ExecOp) { e.Security = 7 }), "pb.ExecOp.security 7 is not supported"},
		"mount_type":        {exec(func(e *pb.ExecOp) { e.Mounts[0].MountType = 77 }), "pb.Mount.mountType 77 is not supported"},
		"sharing":           {exec(func(e *pb.ExecOp) { e.Mounts[0].CacheOpt = &pb.CacheOpt{Sharing: 7} }), "pb.CacheOpt.sharing 7 is not supported"},
		"newer_field":       {exec(func(e *pb.ExecOp) { e.Meta.ProtoReflect().SetUnknown([]byte{0xf8, 0x7f, 1}) }), "pb.Meta has fields that this version does not know"},
		"image_checksum":    {source("docker-image://x", pb.AttrImageChecksum), "docker-image://x: attribute image.checksum is not supported"},
		"image_layers":      {source("docker-image://x", pb.AttrImageLayerLimit), "attribute image.layerlimit is not supported"},
		"local_metadata":    {source("local://context", pb.AttrMetadataTransfer), "local://context: attribute local.metadatatransfer is not supported"},
		"http_owner":        {source("https://x/y", pb.AttrHTTPUID), "attribute http.uid is not supported"},
		"http_header":       {source("https://x/y", pb.AttrHTTPHeaderPrefix+"a"), "attribute http.header.a is not supported"},
		"scheme":            {source("ftp://x", "a"), `source "ftp://x" is not supported`},
		"blob":              {source("docker-image+blob://x", "a"), `source "docker-image+blob://x" is not supported`},
		"action_of_nothing": {&pb.Op{Op: &pb.Op_File{File: &pb.FileOp{Actions: []*pb.FileAction{{}}}}}, "file action <nil> is not supported"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := convertOp(tc.op)
			assert.ErrorContains(t, err, tc.want)
		})
	}
}
