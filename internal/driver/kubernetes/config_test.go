package kubernetes

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func usual() Config {
	return Config{Image: "registry.example.com/tool@sha256:x", Lease: DefaultLease, TTL: DefaultTTL, ScheduleTimeout: DefaultScheduleTimeout, RequireNative: true}
}

func newDriver(t *testing.T, c Config) *Driver {
	t.Helper()
	d, err := New(&Cluster{Client: fake.NewClientset(), Namespace: "ns"}, c)
	assert.NilError(t, err)
	d.run = "run" // as it would be for another driver
	return d
}

func aTask() Task {
	return Task{Platform: "linux/arm64", Arch: "arm64", Args: []string{"job", "--request=x"}}
}

// Every field of a Config is seen in the Job, or is of those that say what the driver
// does, which other tests look at.
func TestConfig_reaches_the_job(t *testing.T) {
	t.Parallel()
	behaviour := map[string]bool{"ScheduleTimeout": true, "Retries": true, "RequireNative": true, "Parallel": true}
	file := filepath.Join(t.TempDir(), "pod.yaml")
	assert.NilError(t, os.WriteFile(file, []byte("spec: {hostUsers: false}"), 0o644))
	values := map[string]any{
		"Namespace": "other", "Image": "other", "PullPolicy": "Never", "PullSecrets": []string{"pull"}, "RegistrySecrets": []string{"login"},
		"ServiceAccount": "builder", "Requests": []string{"cpu=1"}, "Limits": []string{"memory=1Gi"}, "NodeSelector": []string{"pool=x"},
		"Labels": []string{"team=x"}, "Annotations": []string{"note=x y"}, "NodeAffinity": "pool in (a,b)", "Tolerations": []string{"dedicated=builds:NoSchedule"},
		"PriorityClass": "low", "RuntimeClass": "gvisor", "Template": file, "Deadline": time.Minute, "Lease": time.Minute, "TTL": time.Minute,
	}
	jobOf := func(c Config) string {
		job, err := newDriver(t, c).job("name", aTask())
		assert.NilError(t, err)
		data, err := json.Marshal(job)
		assert.NilError(t, err)
		return string(data)
	}
	before := jobOf(usual())
	for i := range reflect.TypeFor[Config]().NumField() {
		name := reflect.TypeFor[Config]().Field(i).Name
		if behaviour[name] {
			continue
		}
		value, ok := values[name]
		assert.Assert(t, ok, "%s: how does it reach the Job?", name)
		c := usual()
		reflect.ValueOf(&c).Elem().Field(i).Set(reflect.ValueOf(value))
		assert.Check(t, jobOf(c) != before, "%s changes nothing", name)
	}
}

func TestConfig_refused(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"no_image", func(c *Config) { c.Image = "" }, "--k8s-image"},
		{"policy", func(c *Config) { c.PullPolicy = "always" }, "Always, IfNotPresent or Never"},
		{"request", func(c *Config) { c.Requests = []string{"cpu"} }, "--k8s-request"},
		{"quantity", func(c *Config) { c.Limits = []string{"memory=lots"} }, "--k8s-limit memory=lots"},
		{"more_than_limit", func(c *Config) { c.Requests, c.Limits = []string{"cpu=2"}, []string{"cpu=1"} }, "is more than --k8s-limit"},
		{"twice", func(c *Config) { c.Requests = []string{"cpu=2", "cpu=1"} }, "twice"},
		{"label", func(c *Config) { c.Labels = []string{"a b=c"} }, "--k8s-label"},
		{"own_label", func(c *Config) { c.Labels = []string{runLabel + "=x"} }, "the driver's own"},
		{"selector", func(c *Config) { c.NodeSelector = []string{"a"} }, "--k8s-node-selector"},
		{"affinity", func(c *Config) { c.NodeAffinity = "a in b" }, "--k8s-node-affinity"},
		{"toleration", func(c *Config) { c.Tolerations = []string{"a=b:Never"} }, "NoSchedule"},
		{"logins", func(c *Config) { c.RegistrySecrets = []string{"a", "b", "c"} }, "at most 2"},
		{"secret", func(c *Config) { c.PullSecrets = []string{"A_B"} }, "--k8s-pull-secret"},
		{"lease", func(c *Config) { c.Lease = time.Second }, "--k8s-lease"},
		{"deadline", func(c *Config) { c.Deadline = -1 }, "--k8s-deadline"},
		{"template", func(c *Config) { c.Template = "/nowhere" }, "--k8s-pod-template"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := usual()
			tc.change(&c)
			_, err := New(&Cluster{Client: fake.NewClientset(), Namespace: "ns"}, c)
			assert.ErrorContains(t, err, tc.want)
			_, ok := err.(*InputError)
			assert.Check(t, ok, "%T", err)
		})
	}
}

// What Pod Security's level baseline forbids is not there, and nothing is asked of
// the API by a pod.
func TestPod(t *testing.T) {
	t.Parallel()
	c := usual()
	c.RegistrySecrets = []string{"first", "second:key"}
	task := aTask()
	task.Secret, task.SecretDir = map[string][]byte{"a": []byte("b")}, "/kaniko/job"
	pod, err := newDriver(t, c).pod("name", task)
	assert.NilError(t, err)
	spec, ours := pod.Spec, container(&pod.Spec)
	assert.Check(t, is.DeepEqual(spec.NodeSelector, map[string]string{"kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64"}))
	assert.Check(t, !*spec.AutomountServiceAccountToken)
	assert.Check(t, is.Equal(spec.SecurityContext.SeccompProfile.Type, corev1.SeccompProfileTypeRuntimeDefault))
	assert.Check(t, ours.SecurityContext == nil && !spec.HostNetwork && !spec.HostPID && !spec.HostIPC)
	for i, taint := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		assert.Check(t, is.Equal(spec.Tolerations[i].Key, taint))
		assert.Check(t, is.Equal(*spec.Tolerations[i].TolerationSeconds, int64(lostSeconds)), "a lost node has a minute")
	}
	env := map[string]string{}
	for _, e := range ours.Env {
		env[e.Name] = e.Value
	}
	assert.Check(t, is.DeepEqual(env, map[string]string{"XDG_CACHE_HOME": "/kaniko/cache", "DOCKER_CONFIG": "/kaniko/.docker", "REGISTRY_AUTH_FILE": "/kaniko/registry/config.json"}))
	keys := map[string]string{}
	for _, v := range spec.Volumes {
		assert.Check(t, v.HostPath == nil, v.Name)
		if v.Secret != nil {
			key := ""
			for _, item := range v.Secret.Items {
				key = item.Key + " as " + item.Path
			}
			keys[v.Secret.SecretName] = key
		}
	}
	assert.Check(t, is.DeepEqual(keys, map[string]string{"first": ".dockerconfigjson as config.json", "second": "key as config.json", "name": ""}))
}

func TestTemplate(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, text, err string
		check           func(*testing.T, corev1.PodTemplateSpec)
	}{
		{"merged_by_name", "kind: Pod\napiVersion: v1\nmetadata: {labels: {a: b}}\nspec:\n  containers:\n  - name: kaniko\n    env: [{name: X, value: why}]\n  - name: side\n    image: z\n  securityContext: {seccompProfile: {type: Unconfined}}\n", "",
			func(t *testing.T, p corev1.PodTemplateSpec) {
				assert.Check(t, is.Len(p.Spec.Containers, 2))
				assert.Check(t, is.Len(container(&p.Spec).Env, 2))
				assert.Check(t, is.Equal(p.Spec.SecurityContext.SeccompProfile.Type, corev1.SeccompProfileTypeUnconfined))
				assert.Check(t, is.Equal(p.Labels["a"], "b"))
				assert.Check(t, is.Equal(p.Labels[runLabel], "run"))
			}},
		{"other_state", "spec: {volumes: [{name: state, emptyDir: {medium: Memory}}]}", "",
			func(t *testing.T, p corev1.PodTemplateSpec) {
				assert.Check(t, is.Equal(p.Spec.Volumes[0].EmptyDir.Medium, corev1.StorageMediumMemory))
			}},
		{"label_of_the_run", "metadata: {labels: {kaniko-multiarch/run: x}}", "",
			func(t *testing.T, p corev1.PodTemplateSpec) { assert.Check(t, is.Equal(p.Labels[runLabel], "run")) }},
		{"typing_error", "spec: {nodeSelektor: {}}", "nodeSelektor", nil},
		{"kind", "kind: Deployment", "it is a Deployment", nil},
		{"arguments", "spec: {containers: [{name: kaniko, args: [x]}]}", "leave its command, args", nil},
		{"restarts", "spec: {restartPolicy: Always}", "leave its command, args", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			c := usual()
			c.Template = filepath.Join(t.TempDir(), "pod.yaml")
			assert.NilError(t, os.WriteFile(c.Template, []byte(tc.text), 0o644))
			d, err := New(&Cluster{Client: fake.NewClientset(), Namespace: "ns"}, c)
			if tc.err != "" {
				assert.ErrorContains(t, err, tc.err)
				return
			}
			assert.NilError(t, err)
			d.run = "run"
			pod, err := d.pod("name", aTask())
			assert.NilError(t, err)
			tc.check(t, pod)
		})
	}
}

func TestParseToleration(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]corev1.Toleration{
		"a":              {Key: "a", Operator: corev1.TolerationOpExists},
		"a:NoExecute":    {Key: "a", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute},
		"a=b":            {Key: "a", Operator: corev1.TolerationOpEqual, Value: "b"},
		"a=b:NoSchedule": {Key: "a", Operator: corev1.TolerationOpEqual, Value: "b", Effect: corev1.TaintEffectNoSchedule},
	} {
		got, err := parseToleration(text)
		assert.NilError(t, err)
		assert.Check(t, is.DeepEqual(got, want), text)
	}
}
