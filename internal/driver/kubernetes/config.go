package kubernetes

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Config says what the Jobs look like and how patient the driver is. All of it is
// text as the user wrote it; the errors of New name the flag.
type Config struct {
	// Namespace of the Jobs; empty is that of the kubeconfig or of the driver's
	// own pod.
	Namespace string
	// Image has this program, PullPolicy is Kubernetes' word for when it is pulled,
	// empty for its default.
	Image, PullPolicy string
	// PullSecrets pull Image. RegistrySecrets are logins of the build,
	// NAME[:KEY]; at most maxRegistrySecrets.
	PullSecrets, RegistrySecrets []string
	ServiceAccount               string
	// Requests and Limits are NAME=QUANTITY.
	Requests, Limits []string
	// NodeSelector, Labels and Annotations are KEY=VALUE.
	NodeSelector, Labels, Annotations []string
	// NodeAffinity is a selector of nodes' labels, in kubectl's form.
	NodeAffinity string
	// Tolerations are KEY[=VALUE][:EFFECT].
	Tolerations                 []string
	PriorityClass, RuntimeClass string
	// Template is a file with a pod that is merged over ours.
	Template string
	// Deadline ends a Job, with all that it waits for; 0 is never.
	Deadline time.Duration
	// Lease is how long a Job goes on when nobody waits for it any more.
	Lease time.Duration
	// TTL is how long a finished Job stays when nobody deletes it.
	TTL time.Duration
	// ScheduleTimeout is how long a pod may wait for a node.
	ScheduleTimeout time.Duration
	// Retries is how often a Job is started again after a failure that is not the
	// build's.
	Retries int
	// RequireNative refuses platforms that no node has.
	RequireNative bool
	// Parallel limits the Jobs that run at once; 0 is no limit.
	Parallel int
}

// Defaults of the flags.
const (
	DefaultLease           = 5 * time.Minute
	DefaultTTL             = time.Hour
	DefaultScheduleTimeout = 10 * time.Minute
	DefaultRetries         = 2
)

// maxRegistrySecrets is how many sources of logins a process reads that can be
// mounted: DOCKER_CONFIG and REGISTRY_AUTH_FILE.
const maxRegistrySecrets = 2

// minLease is what several renewals fit in, Jobs being counted in seconds.
const minLease = 10 * time.Second

// InputError is a flag that cannot be meant.
type InputError struct{ Err error }

func (e *InputError) Error() string { return e.Err.Error() }
func (e *InputError) Unwrap() error { return e.Err }

func inputf(format string, args ...any) error { return &InputError{fmt.Errorf(format, args...)} }

// settings is a Config in the terms of the API.
type settings struct {
	Config
	requests, limits                  corev1.ResourceList
	nodeSelector, labels, annotations map[string]string
	affinity                          []corev1.NodeSelectorRequirement
	tolerations                       []corev1.Toleration
	// template is the user's pod as JSON; nil without one.
	template []byte
}

// parse reads the text of c, but for the template.
func (c Config) parse() (*settings, error) {
	s := &settings{Config: c}
	var err error
	if s.requests, err = quantities("k8s-request", c.Requests); err != nil {
		return nil, err
	}
	if s.limits, err = quantities("k8s-limit", c.Limits); err != nil {
		return nil, err
	}
	for name, limit := range s.limits {
		if request, ok := s.requests[name]; ok && request.Cmp(limit) > 0 {
			return nil, inputf("--k8s-request %s=%s is more than --k8s-limit %s=%s", name, request.String(), name, limit.String())
		}
	}
	if s.nodeSelector, err = pairs("k8s-node-selector", c.NodeSelector, validation.IsValidLabelValue); err != nil {
		return nil, err
	}
	if s.labels, err = pairs("k8s-label", c.Labels, validation.IsValidLabelValue); err != nil {
		return nil, err
	}
	for key := range s.labels {
		if strings.HasPrefix(key, labelPrefix) || key == managedBy {
			return nil, inputf("--k8s-label %s: this label is the driver's own: choose another name", key)
		}
	}
	if s.annotations, err = pairs("k8s-annotation", c.Annotations, nil); err != nil {
		return nil, err
	}
	if s.affinity, err = nodeAffinity(c.NodeAffinity); err != nil {
		return nil, err
	}
	for _, t := range c.Tolerations {
		toleration, err := parseToleration(t)
		if err != nil {
			return nil, err
		}
		s.tolerations = append(s.tolerations, toleration)
	}
	return s, s.check()
}

func (s *settings) check() error {
	switch corev1.PullPolicy(s.PullPolicy) {
	case "", corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever:
	default:
		return inputf("--k8s-image-pull-policy %s: use Always, IfNotPresent or Never", s.PullPolicy)
	}
	if s.Image == "" {
		return inputf("--k8s-image is missing: this build of kaniko-multiarch is no release, which has an image: name one that holds it")
	}
	if len(s.RegistrySecrets) > maxRegistrySecrets {
		return inputf("--k8s-registry-secret: at most %d: put the logins of several registries into one Secret (kubectl create secret docker-registry --from-file=config.json)", maxRegistrySecrets)
	}
	for flag, names := range map[string][]string{
		"k8s-pull-secret": s.PullSecrets, "k8s-registry-secret": secretNames(s.RegistrySecrets), "k8s-service-account": list(s.ServiceAccount),
		"k8s-priority-class": list(s.PriorityClass), "k8s-runtime-class": list(s.RuntimeClass),
	} {
		for _, name := range names {
			if faults := validation.IsDNS1123Subdomain(name); len(faults) > 0 {
				return inputf("--%s %q: %s", flag, name, faults[0])
			}
		}
	}
	switch {
	case s.Deadline < 0 || s.TTL < 0 || s.ScheduleTimeout < 0 || s.Retries < 0 || s.Parallel < 0:
		return inputf("--k8s-deadline, --k8s-ttl, --k8s-schedule-timeout and --k8s-retries cannot be negative")
	case s.Lease < minLease:
		return inputf("--k8s-lease %s: want %s at least", s.Lease, minLease)
	case s.Deadline > 0 && s.Deadline < time.Second:
		return inputf("--k8s-deadline %s: want a second at least", s.Deadline)
	}
	return nil
}

func list(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

func secretNames(values []string) []string {
	var out []string
	for _, v := range values {
		name, _, _ := strings.Cut(v, ":")
		out = append(out, name)
	}
	return out
}

func quantities(flag string, values []string) (corev1.ResourceList, error) {
	var out corev1.ResourceList
	for _, v := range values {
		name, text, ok := strings.Cut(v, "=")
		if !ok || name == "" {
			return nil, inputf("--%s %q: want NAME=QUANTITY, such as cpu=2,memory=4Gi,ephemeral-storage=20Gi", flag, v)
		}
		q, err := resource.ParseQuantity(text)
		if err != nil || q.Sign() < 0 {
			return nil, inputf("--%s %s=%s: want a quantity, such as 500m, 2 or 4Gi", flag, name, text)
		}
		if out == nil {
			out = corev1.ResourceList{}
		}
		if _, twice := out[corev1.ResourceName(name)]; twice {
			return nil, inputf("--%s %s is given twice", flag, name)
		}
		out[corev1.ResourceName(name)] = q
	}
	return out, nil
}

// pairs reads KEY=VALUE, whose keys are those of labels.
func pairs(flag string, values []string, valid func(string) []string) (map[string]string, error) {
	var out map[string]string
	for _, v := range values {
		key, value, ok := strings.Cut(v, "=")
		if !ok {
			return nil, inputf("--%s %q: want KEY=VALUE", flag, v)
		}
		faults := validation.IsQualifiedName(key)
		if len(faults) == 0 && valid != nil {
			faults = valid(value)
		}
		if len(faults) > 0 {
			return nil, inputf("--%s %q: %s", flag, v, faults[0])
		}
		if out == nil {
			out = map[string]string{}
		}
		out[key] = value
	}
	return out, nil
}

// nodeAffinity reads what kubectl takes as a selector.
func nodeAffinity(text string) ([]corev1.NodeSelectorRequirement, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	sel, err := metav1.ParseToLabelSelector(text)
	if err != nil {
		return nil, inputf("--k8s-node-affinity %q: %w: want a selector such as 'pool in (builders,spare),!windows'", text, err)
	}
	var out []corev1.NodeSelectorRequirement
	for _, key := range slices.Sorted(maps.Keys(sel.MatchLabels)) {
		out = append(out, corev1.NodeSelectorRequirement{Key: key, Operator: corev1.NodeSelectorOpIn, Values: []string{sel.MatchLabels[key]}})
	}
	for _, e := range sel.MatchExpressions {
		out = append(out, corev1.NodeSelectorRequirement{Key: e.Key, Operator: corev1.NodeSelectorOperator(e.Operator), Values: e.Values})
	}
	return out, nil
}

// parseToleration reads a taint as kubectl writes it. A key alone tolerates every
// value, no effect every effect.
func parseToleration(text string) (corev1.Toleration, error) {
	rest, effect, _ := strings.Cut(text, ":")
	key, value, hasValue := strings.Cut(rest, "=")
	t := corev1.Toleration{Key: key, Value: value, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffect(effect)}
	if hasValue {
		t.Operator = corev1.TolerationOpEqual
	}
	var err error
	if faults := validation.IsQualifiedName(key); len(faults) > 0 {
		err = errors.New(faults[0])
	}
	switch t.Effect {
	case "", corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute, corev1.TaintEffectPreferNoSchedule:
	default:
		err = fmt.Errorf("effect %q: use NoSchedule, NoExecute or PreferNoSchedule", effect)
	}
	if err != nil {
		return t, inputf("--k8s-toleration %q: %w: want KEY[=VALUE][:EFFECT]", text, err)
	}
	return t, nil
}
