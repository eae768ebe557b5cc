package job

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"golang.org/x/crypto/ssh"
	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"

	"github.com/org/kaniko-multiarch/internal/build"
	"github.com/org/kaniko-multiarch/internal/driver/local"
	"github.com/org/kaniko-multiarch/internal/ocicontext"
	"github.com/org/kaniko-multiarch/internal/registry"
)

// from is a machine, and the address of a registry.
func from(t *testing.T, env map[string]string) (From, string) {
	t.Helper()
	s := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(s.Close)
	client, err := registry.New(registry.Options{Getenv: func(string) string { return "" }, HomeDir: t.TempDir(), Retry: registry.Retry{Count: -1}})
	assert.NilError(t, err)
	lookup := func(name string) (string, bool) { v, ok := env[name]; return v, ok }
	return From{Registry: client, LookupEnv: lookup, SpoolDir: t.TempDir()}, strings.TrimPrefix(s.URL, "http://")
}

// prepare reads the secrets first, as a driver does.
func prepare(t *testing.T, f From, o build.Options) (map[string]Payload, error) {
	t.Helper()
	var err error
	f.Secrets, err = local.ReadSecrets(o.Secrets, f.LookupEnv)
	assert.NilError(t, err)
	return Prepare(t.Context(), f, o)
}

// write makes a file, and returns its path.
func write(t *testing.T, dir, name, data string) string {
	t.Helper()
	name = filepath.Join(dir, name)
	assert.NilError(t, os.MkdirAll(filepath.Dir(name), 0o755))
	assert.NilError(t, os.WriteFile(name, []byte(data), 0o644))
	return name
}

// How a field of build.Options reaches the pod.
const (
	travels   = "as it is"
	rewritten = "in another form"
	atDriver  = "not: the driver does it for all platforms"
	refused   = "not: it is refused"
	podsOwn   = "not: the pod has its own"
)

func fates() map[string]string {
	return map[string]string{
		"Context": rewritten, "ContextSubPath": travels, "Git.Branch": travels, "Git.SingleBranch": travels, "Git.Depth": travels,
		"Git.RecurseSubmodules": travels, "Git.InsecureSkipTLS": travels, "Dockerfile": rewritten, "BuildContexts": rewritten,
		"Platforms": rewritten, "Target": travels, "BuildArgs": travels, "Labels": travels,
		"Secrets.ID": travels, "Secrets.File": rewritten, "Secrets.Env": rewritten, "SSH.ID": travels, "SSH.Paths": rewritten,
		"AddHosts": travels, "Network": travels, "Ulimits": travels, "ShmSize": travels, "AllowInsecure": travels,
		"NoCache": travels, "NoCacheFilter": travels,
		"Destinations": atDriver, "Image": rewritten, "PushByDigest": rewritten, "NoPush": travels, "PublishIndex": atDriver,
		"Annotations": rewritten, "OCIMode": atDriver,
		"Reproducible": travels, "RewriteTimestamp": travels, "SourceDateEpoch": travels,
		"Cache": travels, "CacheRepo": travels, "CacheTTL": travels, "NoPushCache": travels,
		"CacheFrom.Ref": travels, "CacheFrom.Dir": refused, "CacheTo.Ref": travels, "CacheTo.Dir": refused,
		"Compression": travels, "CompressionLevel": travels,
		"OCILayout": refused, "Tar": refused, "Outputs.Type": refused, "Outputs.Dest": refused, "Outputs.Names": refused,
		"Outputs.Directory": refused, "Outputs.Split": refused,
		"NameDigestFile": atDriver, "NameTagDigestFile": atDriver, "DigestsTo": atDriver, "Key": travels, "DigestFile": atDriver, "MetadataFile": atDriver,
		"IgnoreImmutableTags": atDriver, "SkipPushCheck": travels, "RequireNative": travels,
		"Registries.Mirrors": travels, "Registries.Maps": travels, "Registries.MirrorsOnly": travels,
		"Registries.Certificates": rewritten, "Registries.ClientCerts.Cert": rewritten, "Registries.ClientCerts.Key": rewritten,
		"Registries.Insecure": travels, "Registries.InsecurePull": travels, "Registries.InsecurePush": travels,
		"Registries.SkipVerify": travels, "Registries.SkipVerifyPull": travels, "Registries.SkipVerifyPush": travels,
		"Registries.CredentialHelpers": travels, "Registries.Retry.Count": travels, "Registries.Retry.InitialDelay": travels, "Registries.Retry.MaxDelay": travels,
		"StateDir": podsOwn, "StateSize": travels, "Parallel": travels, "Timeout": travels,
	}
}

// leaves calls visit for each field that has no fields itself; those of elements of
// lists and maps belong to the list.
func leaves(name string, t reflect.Type, visit func(string)) {
	elem := t
	for elem.Kind() == reflect.Slice || elem.Kind() == reflect.Map {
		elem = elem.Elem()
	}
	if elem.Kind() != reflect.Struct {
		visit(name)
		return
	}
	for i := range elem.NumField() {
		leaves(strings.TrimPrefix(name+"."+elem.Field(i).Name, "."), elem.Field(i).Type, visit)
	}
}

// fill gives every leaf of the fate a value that is not zero.
func fill(name string, v reflect.Value, fate func(string) bool) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(strings.TrimPrefix(name+"."+v.Type().Field(i).Name, "."), v.Field(i), fate)
		}
		return
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Struct {
			one := reflect.New(v.Type().Elem()).Elem()
			fill(name, one, fate)
			if !one.IsZero() {
				v.Set(reflect.Append(v, one))
			}
			return
		}
	case reflect.Map:
		if v.Type().Elem().Kind() == reflect.Struct {
			return // named by the tests of what is rewritten
		}
	}
	if !fate(name) {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("x-" + strings.ToLower(name))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(name, v.Elem(), fate)
	case reflect.Slice:
		one := reflect.New(v.Type().Elem()).Elem()
		fill(name, one, fate)
		v.Set(reflect.Append(v, one))
	case reflect.Map:
		one := reflect.New(v.Type().Elem()).Elem()
		fill(name, one, fate)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("key"), one)
	default:
		panic(fmt.Sprintf("%s is of a kind that the test does not know: %s", name, v.Kind()))
	}
}

// at are the values of a leaf.
func at(v reflect.Value, name string) []any {
	first, rest, more := strings.Cut(name, ".")
	switch {
	case name == "":
		return []any{v.Interface()}
	case v.Kind() == reflect.Slice:
		var out []any
		for i := range v.Len() {
			out = append(out, at(v.Index(i), name)...)
		}
		return out
	case v.Kind() == reflect.Map:
		var out []any
		for _, key := range v.MapKeys() {
			out = append(out, at(v.MapIndex(key), name)...)
		}
		return out
	}
	if !more {
		rest = ""
	}
	return at(v.FieldByName(first), rest)
}

// Every option has a fate: a new field needs one here, and in Prepare.
func TestPrepare_every_field(t *testing.T) {
	t.Parallel()
	known := fates()
	var fields []string
	leaves("", reflect.TypeFor[build.Options](), func(name string) {
		fields = append(fields, name)
		_, ok := known[name]
		assert.Check(t, ok, "build.Options.%s is new: decide how it reaches a Job, in Prepare, and say so here", name)
	})
	for name := range known {
		assert.Check(t, slices.Contains(fields, name), "build.Options has no %s", name)
	}

	f, host := from(t, map[string]string{"V": "hunter2"})
	var in build.Options
	fill("", reflect.ValueOf(&in).Elem(), func(name string) bool { return known[name] == travels || known[name] == atDriver })
	// What has to make sense.
	in.Context, in.Platforms = "git://example.com/r.git#refs/heads/x", []string{"linux/arm64/v8"}
	in.Secrets = []build.Secret{{ID: "id", Env: "V"}}
	in.SSH[0].Paths = []string{sshKey(t)}
	in.Destinations = []string{host + "/app:1", host + "/other:2"}
	in.Image = host + "/app"
	for i := range in.CacheFrom {
		in.CacheFrom[i].Ref, in.CacheTo[i].Ref = host+"/from", host+"/to"
	}
	in.CacheRepo, in.StateDir = host+"/cache", "/state"
	payloads, err := prepare(t, f, in)
	assert.NilError(t, err)
	s, err := payloads["linux/arm64"].Request.Encode()
	assert.NilError(t, err)
	decoded, err := Decode(s)
	assert.NilError(t, err)
	for name, fate := range known {
		want, got := at(reflect.ValueOf(in), name), at(reflect.ValueOf(decoded.Options), name)
		switch fate {
		case travels:
			assert.Check(t, len(want) > 0 && !reflect.ValueOf(want[0]).IsZero(), "%s has no value to compare", name)
			assert.Check(t, is.DeepEqual(got, want), name)
		case atDriver, podsOwn, refused:
			for _, v := range got {
				assert.Check(t, reflect.ValueOf(v).IsZero(), "%s reached the pod: %v", name, v)
			}
		}
	}
	assert.Check(t, is.DeepEqual(decoded.Options.Platforms, []string{"linux/arm64"}))
	assert.Check(t, decoded.Options.PushByDigest && decoded.Options.Image == host+"/app")
}

func TestPrepare_refuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "Dockerfile", "FROM scratch\n")
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	assert.NilError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	for _, tc := range []struct {
		name string
		set  func(*build.Options)
		want string
	}{
		{"oci_layout", func(o *build.Options) { o.OCILayout = "d" }, "--oci-layout-path"},
		{"tar", func(o *build.Options) { o.Tar = "t" }, "--tar-path"},
		{"output", func(o *build.Options) { o.Outputs = []build.Output{{Type: "local", Dest: "d"}} }, "--output type=local"},
		{"cache_repo", func(o *build.Options) { o.Cache, o.CacheRepo = true, "oci:/dir" }, "--cache-repo oci:/dir"},
		{"cache_from", func(o *build.Options) { o.CacheFrom = []build.CacheLocation{{Dir: "/d"}} }, "--cache-from /d"},
		{"cache_to", func(o *build.Options) { o.CacheTo = []build.CacheLocation{{Dir: "/d"}} }, "--cache-to /d"},
		{"agent", func(o *build.Options) { o.SSH = []build.SSH{{ID: "default"}} }, "--ssh default=FILE"},
		{"agent_socket", func(o *build.Options) { o.SSH = []build.SSH{{ID: "a", Paths: []string{socket}}} }, "--ssh a=FILE"},
		{"no_key", func(o *build.Options) {
			o.SSH = []build.SSH{{ID: "a", Paths: []string{filepath.Join(dir, "Dockerfile")}}}
		}, "neither a private key"},
		{"authority", func(o *build.Options) {
			o.Registries.Certificates = map[string]string{"h": filepath.Join(dir, "Dockerfile")}
		}, "no certificate"},
		{"large_secret", func(o *build.Options) {
			o.Secrets = []build.Secret{{ID: "x", File: write(t, t.TempDir(), "s", strings.Repeat("x", maxSecret+1))}}
		}, "a Secret of Kubernetes holds"},
		{"nowhere", func(o *build.Options) { o.Destinations, o.NoPush = nil, true }, "no way to the Job"},
		{"no_destination", func(o *build.Options) { o.Destinations = nil }, "nowhere to push to"},
		{"annotation", func(o *build.Options) { o.Annotations = []string{"index:a=b"} }, "makes no index"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f, host := from(t, nil)
			o := build.Options{Context: dir, Platforms: []string{"linux/amd64"}, Destinations: []string{host + "/app:1"}}
			tc.set(&o)
			_, err := prepare(t, f, o)
			assert.ErrorContains(t, err, tc.want)
			var input *local.InputError
			assert.Check(t, errors.As(err, &input), "%T", err)
		})
	}
}

func sshKey(t *testing.T) string {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	assert.NilError(t, err)
	block, err := ssh.MarshalPrivateKey(key, "")
	assert.NilError(t, err)
	return write(t, t.TempDir(), "key", string(pem.EncodeToMemory(block)))
}

func certificate(t *testing.T) (cert, key string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	assert.NilError(t, err)
	of := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, of, of, &k.PublicKey, k)
	assert.NilError(t, err)
	keyDER, err := x509.MarshalECPrivateKey(k)
	assert.NilError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
}

// What is secret is in the Secret only, and arrives in the pod.
func TestPrepare_secrets(t *testing.T) {
	t.Parallel()
	f, host := from(t, map[string]string{"V": "hunter2-variable", "GIT_TOKEN": "hunter2-git", "GIT_USERNAME": "git"})
	cert, key := certificate(t)
	dir := t.TempDir()
	sshFile := sshKey(t)
	o := build.Options{
		Context: "https://user:hunter2-url@example.com/r.git#main", Platforms: []string{"linux/amd64", "linux/arm64"}, Destinations: []string{host + "/app:1"},
		Dockerfile:    "https://example.com/Dockerfile?sig=hunter2-signature",
		BuildContexts: map[string]string{"a:1": "https://example.com/a.tar?sig=hunter2-named", "image": "docker-image://" + host + "/b:1", "plain": "https://example.com/b.tar"},
		Secrets:       []build.Secret{{ID: "v", Env: "V"}, {ID: "f", File: write(t, dir, "s", "hunter2-file")}},
		SSH:           []build.SSH{{ID: "default", Paths: []string{sshFile}}},
		Registries: build.Registries{
			Certificates: map[string]string{host: write(t, dir, "ca", cert+key)},
			ClientCerts:  map[string]build.ClientCert{host: {Cert: write(t, dir, "cert", cert+key), Key: write(t, dir, "key", key)}},
		},
	}
	payloads, err := prepare(t, f, o)
	assert.NilError(t, err)
	assert.Assert(t, is.Len(payloads, 2))
	p := payloads["linux/arm64"]
	s, err := p.Request.Encode()
	assert.NilError(t, err)
	r, err := Decode(s)
	assert.NilError(t, err)
	text := fmt.Sprintf("%+v", r)
	for _, data := range r.Files {
		text += string(data)
	}
	assert.Check(t, is.Contains(text, "BEGIN CERTIFICATE"))
	for _, secret := range []string{"hunter2", "PRIVATE KEY"} {
		assert.Check(t, !strings.Contains(text, secret), text)
	}

	mounted, work := t.TempDir(), t.TempDir()
	for name, data := range p.Secret {
		assert.Check(t, strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-.") == "", name)
		write(t, mounted, name, string(data))
	}
	opened, err := r.Open(work, mounted)
	assert.NilError(t, err)
	got := opened.Options
	assert.Check(t, is.Equal(got.Context, o.Context))
	assert.Check(t, is.Equal(got.Dockerfile, o.Dockerfile))
	assert.Check(t, is.DeepEqual(got.BuildContexts, o.BuildContexts))
	assert.Check(t, is.DeepEqual(opened.Variables, map[string]string{"GIT_TOKEN": "hunter2-git", "GIT_USERNAME": "git"}))
	for _, secret := range []string{"hunter2-git", "hunter2-url", "sig=hunter2-signature"} {
		assert.Check(t, slices.Contains(opened.Secrets, secret), "%q", opened.Secrets)
	}
	assert.Check(t, !slices.Contains(opened.Secrets, "git"), "%q", opened.Secrets)
	content := func(name string) string {
		assert.Check(t, filepath.IsLocal(name), name)
		data, err := os.ReadFile(filepath.Join(work, name))
		assert.Check(t, err)
		return string(data)
	}
	ssh, err := os.ReadFile(sshFile)
	assert.NilError(t, err)
	assert.Check(t, is.Equal(content(got.Secrets[0].File), "hunter2-variable"))
	assert.Check(t, is.Equal(content(got.Secrets[1].File), "hunter2-file"))
	assert.Check(t, is.Equal(content(got.SSH[0].Paths[0]), string(ssh)))
	assert.Check(t, is.Equal(content(got.Registries.Certificates[host]), cert))
	assert.Check(t, is.Equal(content(got.Registries.ClientCerts[host].Key), key))
	assert.Check(t, is.Equal(content(got.Registries.ClientCerts[host].Cert), cert+key))

	_, err = r.Open(t.TempDir(), t.TempDir())
	assert.ErrorContains(t, err, "mount the Secret")
}

// The Dockerfile is found in the pod as it is here.
func TestPrepare_dockerfile(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		// files are made in a directory whose "app" is the context; given is the
		// Dockerfile below it.
		files map[string]string
		links map[string]string
		given string
		// inline are the files of the request, sent those of the context.
		inline, sent []string
	}{
		{"default", map[string]string{"app/Dockerfile": "", "app/x": ""}, nil, "", nil, []string{"Dockerfile", "x"}},
		{"ignored", map[string]string{"app/Dockerfile": "", "app/.dockerignore": "*\n!x", "app/x": "", "app/y": ""}, nil, "", nil, []string{".dockerignore", "Dockerfile", "x"}},
		{"own_ignore_file", map[string]string{"app/d/D[1]": "", "app/d/D[1].dockerignore": "*\n!y", "app/.dockerignore": "y", "app/x": "", "app/y": ""}, nil, "app/d/D[1]", nil, []string{".dockerignore", "d/D[1]", "d/D[1].dockerignore", "y"}},
		{"empty_own_ignore_file", map[string]string{"app/D": "", "app/D.dockerignore": "", "app/.dockerignore": "y", "app/y": ""}, nil, "app/D", nil, []string{".dockerignore", "D", "D.dockerignore", "y"}},
		{"outside", map[string]string{"D": "", "D.dockerignore": "y\n", "app/.dockerignore": "x", "app/x": "", "app/y": ""}, nil, "D", []string{"D", "D.dockerignore"}, []string{".dockerignore", "x"}},
		{"link_out_of_it", map[string]string{"D": "", "app/x": ""}, map[string]string{"app/Dockerfile": "../D"}, "", []string{"Dockerfile"}, []string{"Dockerfile", "x"}},
		{"linked_ignore_file", map[string]string{"app/Dockerfile": "", "app/ignored": "*", "app/x": ""}, map[string]string{"app/.dockerignore": "ignored"}, "", nil, []string{".dockerignore", "Dockerfile", "ignored"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f, host := from(t, nil)
			dir := t.TempDir()
			for name, text := range tc.files {
				write(t, dir, name, text)
			}
			for name, target := range tc.links {
				assert.NilError(t, os.Symlink(target, filepath.Join(dir, name)))
			}
			o := build.Options{Context: filepath.Join(dir, "app"), Platforms: []string{"linux/amd64"}, Image: host + "/app"}
			if tc.given != "" {
				o.Dockerfile = filepath.Join(dir, tc.given)
			}
			payloads, err := prepare(t, f, o)
			assert.NilError(t, err)
			r := payloads["linux/amd64"].Request
			fetched := t.TempDir()
			assert.NilError(t, ocicontext.Fetch(t.Context(), f.Registry, strings.TrimPrefix(r.Options.Context, ocicontext.Scheme), fetched))
			assert.Check(t, is.DeepEqual(files(t, fetched), tc.sent))
			var inline []string
			for name := range r.Files {
				inline = append(inline, filepath.Base(name))
			}
			slices.Sort(inline)
			assert.Check(t, is.DeepEqual(inline, tc.inline))
			if tc.inline == nil {
				assert.Check(t, slices.Contains(tc.sent, r.Options.Dockerfile), r.Options.Dockerfile)
			} else {
				_, ok := r.Files[r.Options.Dockerfile]
				assert.Check(t, ok, r.Options.Dockerfile)
				assert.Check(t, strings.HasPrefix(r.DockerfileName, dir) || tc.given == "", r.DockerfileName)
			}
			// A build there would send the same.
			o.Context = fetched
			if tc.inline == nil {
				o.Dockerfile = filepath.Join(fetched, r.Options.Dockerfile)
			} else {
				o.Dockerfile = filepath.Join(dir, "D")
			}
			again, err := prepare(t, f, o)
			assert.NilError(t, err)
			assert.Check(t, is.Equal(again["linux/amd64"].Request.Options.Context, r.Options.Context))
		})
	}
}

func files(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			name, _ := filepath.Rel(dir, p)
			out = append(out, name)
		}
		return err
	})
	assert.NilError(t, err)
	return out
}

func TestPrepare_repository(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "Dockerfile", "FROM scratch\n")
	for _, tc := range []struct {
		name string
		set  func(o *build.Options, host string)
		want string
	}{
		{"image", func(*build.Options, string) {}, "/app@"},
		{"cache", func(o *build.Options, _ string) { o.Cache = true }, "/app/cache@"},
		{"cache_repo", func(o *build.Options, host string) { o.Cache, o.CacheRepo = true, host+"/kept" }, "/kept@"},
		{"read_only_cache", func(o *build.Options, host string) { o.Cache, o.CacheRepo, o.NoPushCache = true, host+"/kept", true }, "/app@"},
		{"no_push", func(o *build.Options, host string) {
			o.Cache, o.CacheRepo, o.NoPush, o.Destinations = true, host+"/kept", true, nil
		}, "/kept@"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			f, host := from(t, nil)
			o := build.Options{Context: dir, Platforms: []string{"linux/amd64"}, Destinations: []string{host + "/app:1", host + "/other:1"}}
			tc.set(&o, host)
			payloads, err := prepare(t, f, o)
			assert.NilError(t, err)
			assert.Check(t, strings.HasPrefix(payloads["linux/amd64"].Request.Options.Context, ocicontext.Scheme+host+tc.want), payloads["linux/amd64"].Request.Options.Context)
		})
	}
}

// A file of credentials in the context stays here.
func TestPrepare_hides_credentials(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "Dockerfile", "FROM scratch\n")
	write(t, dir, "auth/config.json", "{}")
	f, host := from(t, map[string]string{"DOCKER_CONFIG": filepath.Join(dir, "auth")})
	payloads, err := prepare(t, f, build.Options{Context: dir, Platforms: []string{"linux/amd64"}, Image: host + "/app"})
	assert.NilError(t, err)
	fetched := t.TempDir()
	assert.NilError(t, ocicontext.Fetch(t.Context(), f.Registry, strings.TrimPrefix(payloads["linux/amd64"].Request.Options.Context, ocicontext.Scheme), fetched))
	assert.Check(t, is.DeepEqual(files(t, fetched), []string{"Dockerfile"}))
}
