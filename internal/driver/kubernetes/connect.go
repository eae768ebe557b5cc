package kubernetes

import (
	"errors"
	"fmt"
	"strings"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Connection says which cluster to use.
type Connection struct {
	// Kubeconfig is a file; empty looks at $KUBECONFIG, then ~/.kube/config, then
	// whether this runs in a pod.
	Kubeconfig string
	// Context is one of the kubeconfig's; empty is its current one.
	Context   string
	UserAgent string
}

// Cluster is where the Jobs go.
type Cluster struct {
	Client kubernetes.Interface
	// Namespace is the one to use when the user names none.
	Namespace string
	// InCluster is set when this process is a pod of the cluster.
	InCluster bool
}

// Connect finds the cluster. It asks it nothing yet.
func Connect(c Connection) (*Cluster, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.Kubeconfig
	// A file of $KUBECONFIG that is not there is no reason to complain.
	rules.WarnIfAllMissing = false
	loaded := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: c.Context})
	raw, err := loaded.RawConfig()
	if err != nil {
		return nil, inputf("reading the kubeconfig: %w", err)
	}
	if c.Context != "" && raw.Contexts[c.Context] == nil {
		return nil, inputf("--k8s-context %s: the kubeconfig has no such context", c.Context)
	}
	// The deferred loader itself falls back to the pod's service account.
	config, err := loaded.ClientConfig()
	if clientcmd.IsEmptyConfig(err) || errors.Is(err, rest.ErrNotInCluster) {
		return nil, inputf("--driver=k8s: there is no kubeconfig (--k8s-kubeconfig, $KUBECONFIG, ~/.kube/config), and this is no pod with a service account: give one of them")
	}
	if err != nil {
		return nil, inputf("the kubeconfig: %w", err)
	}
	namespace, _, err := loaded.Namespace()
	if err != nil {
		return nil, inputf("the kubeconfig's namespace: %w", err)
	}
	config.UserAgent = c.UserAgent
	// The server has limits of its own, which it divides fairly.
	config.QPS, config.Burst = -1, 0
	// What it warns of is an event, too, when it matters.
	config.WarningHandler = rest.NoWarnings{}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connecting to the cluster: %w", err)
	}
	// A kubeconfig may lead to the cluster that this pod is of, or to another.
	own, err := rest.InClusterConfig()
	in := err == nil && strings.TrimRight(own.Host, "/") == strings.TrimRight(config.Host, "/")
	return &Cluster{Client: client, Namespace: namespace, InCluster: in}, nil
}
