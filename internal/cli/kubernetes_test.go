package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/org/kaniko-multiarch/internal/job"
)

// kubernetesNames are the flags about clusters: they are variables, too.
func kubernetesNames() []string {
	names := []string{"driver"}
	for f := range reflect.TypeFor[kubernetesFlags]().Fields() {
		names = append(names, f.Tag.Get("name"))
	}
	return names
}

// No flag is taken and ignored: each alone changes what the driver is told, and is
// refused where another driver would ignore it.
func TestKubernetesFlags(t *testing.T) {
	t.Parallel()
	base := kubernetesFlags{}
	for f := range reflect.TypeFor[kubernetesFlags]().Fields() {
		var given kubernetesFlags
		v := reflect.ValueOf(&given).Elem().FieldByIndex(f.Index)
		switch v.Interface().(type) {
		case string:
			v.SetString("x")
		case []string:
			v.Set(reflect.ValueOf([]string{"x"}))
		case time.Duration:
			v.SetInt(int64(7 * time.Second))
		case *int, *time.Duration: // 0 is no default
			v.Set(reflect.New(f.Type.Elem()))
		}
		name := f.Tag.Get("name")
		assert.Check(t, is.ErrorContains(given.refuse(driverLocal), "--"+name))
		if name != "k8s-kubeconfig" && name != "k8s-context" { // they say where, not what
			assert.Check(t, !reflect.DeepEqual(given.config(), base.config()), "--%s changes nothing", name)
		}
	}
	assert.NilError(t, base.refuse(driverLocal))
}

func TestReleaseImage(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]string{
		"v1.2.3": "ghcr.io/org/kaniko-multiarch:v1.2.3", "dev": "", "v1.2.3-4-gabcdef0": "", "v1.2.3-dirty": "",
	} {
		assert.Check(t, is.Equal(releaseImage(version), want), version)
	}
}

// What is wrong shows before a cluster is asked for anything.
func TestBuild_on_kubernetes_refuses(t *testing.T) {
	t.Parallel()
	config := filepath.Join(t.TempDir(), "config")
	assert.NilError(t, os.WriteFile(config, []byte(`{"apiVersion": "v1", "kind": "Config", "current-context": "c",
"clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}], "contexts": [{"name": "c", "context": {"cluster": "c"}}]}`), 0o644))
	for _, tc := range []struct{ name, args, want string }{
		{"other_driver", "--k8s-image=x", "--k8s-image is for --driver=k8s"},
		{"ci", "--driver=ci", "merge --digests-from"},
		{"no_kubeconfig", "--driver=k8s --k8s-kubeconfig=/nowhere", "/nowhere"},
		{"context", "--driver=k8s --k8s-context=other", "no such context"},
		{"no_image", "--driver=k8s", "--k8s-image is missing"},
		{"state_dir", "--driver=k8s --state-dir=/x", "--state-dir"},
		{"quantity", "--driver=k8s --k8s-image=x --k8s-request=cpu=lots", "--k8s-request cpu=lots"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			args := append([]string{"kaniko-multiarch", "build", "--no-push"}, strings.Fields(tc.args)...)
			if !strings.Contains(tc.args, "kubeconfig") {
				args = append(args, "--k8s-kubeconfig="+config)
			}
			if !strings.Contains(tc.args, "--driver") {
				args = args[:len(args)-1]
			}
			code := Main(args, World{Stdout: &out, Stderr: &out, LookupEnv: variables{"HOME": t.TempDir()}.lookup})
			assert.Check(t, is.Equal(code, exitUsage), strconv.Quote(out.String()))
			assert.Check(t, is.Contains(out.String(), tc.want))
		})
	}
}

func TestAnswers(t *testing.T) {
	t.Parallel()
	step := 42
	failed, err := job.Result{ExitCode: 1, StepCode: &step, Error: "Dockerfile:3"}.Encode()
	assert.NilError(t, err)
	a := &answers{by: map[string]job.Result{}}
	for _, tc := range []struct {
		message string
		whole   bool
		want    string
	}{
		{"", false, "no result"},
		{"Killed", false, "no result"},
		{`{"schema":"kaniko-multiarch.job/v9"}`, true, "the same release"},
		{string(failed), true, "linux/arm64: Dockerfile:3"},
	} {
		whole, err := a.take("linux/arm64", tc.message)
		assert.Check(t, is.Equal(whole, tc.whole), tc.message)
		assert.Check(t, is.ErrorContains(err, tc.want))
	}
	_, err = a.take("linux/arm64", string(failed))
	code, ok := stepCode(err)
	assert.Check(t, ok && code == 42, "%d", code)
	assert.Check(t, is.Len(a.by, 0))
}

// The table of docs/kubernetes.md is what --help says.
func TestDocs_kubernetes_flags(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/kubernetes.md")
	assert.NilError(t, err)
	for f := range reflect.TypeFor[kubernetesFlags]().Fields() {
		row := "| `--" + f.Tag.Get("name") + "` | " + strings.ReplaceAll(f.Tag.Get("help"), "|", `\|`) + " |\n"
		assert.Check(t, is.Contains(string(text), row))
	}
}

// The example's driver has flags that exist, and says who it is as its Role does.
func TestExamples_kubernetes(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("../../examples/kubernetes/cronjob.yaml")
	assert.NilError(t, err)
	var cron batchv1.CronJob
	assert.NilError(t, yaml.UnmarshalStrict(data, &cron))
	pod := cron.Spec.JobTemplate.Spec.Template.Spec
	c := pod.Containers[0]
	g, err := parse(t, nil, append(c.Command[1:], c.Args...)...)
	assert.NilError(t, err)
	assert.Check(t, is.Equal(g.Build.Driver, driverKubernetes))
	_, err = g.Build.options(&World{LookupEnv: variables{}.lookup})
	assert.NilError(t, err)
	roles, err := os.ReadFile("../../examples/kubernetes/rbac.yaml")
	assert.NilError(t, err)
	assert.Check(t, is.Contains(string(roles), "name: "+pod.ServiceAccountName+"\n"))
	data, err = os.ReadFile("../../examples/kubernetes/registry-secret.yaml")
	assert.NilError(t, err)
	var secret corev1.Secret
	assert.NilError(t, yaml.UnmarshalStrict(data, &secret))
	assert.Check(t, is.Equal(pod.Volumes[0].Secret.SecretName, secret.Name))
	assert.Check(t, is.DeepEqual(splitList(g.Build.K8sRegistrySecret), []string{secret.Name}))
}

// The fork whose guide has --driver=k8s names the Secret of its Jobs in a variable.
func TestExecutor_registry_secret_of_the_environment(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ args, want string }{
		{"--driver=k8s", "[login]"},
		{"--driver=k8s --k8s-registry-secret=other", "[other]"},
		{"--driver=local", "[]"},
	} {
		c, err := parseExecutor(t, strings.Fields("--no-push "+tc.args)...)
		assert.NilError(t, err)
		b, err := c.build(&World{LookupEnv: variables{"HOME": "/h", "KANIKO_REGISTRY_SECRET": "login"}.lookup})
		assert.NilError(t, err)
		assert.Check(t, is.Equal(fmt.Sprint(b.kubernetesFlags.config().RegistrySecrets), tc.want), tc.args)
	}
}
