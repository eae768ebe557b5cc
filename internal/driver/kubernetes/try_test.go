package kubernetes

import (
	"crypto/tls"
	"errors"
	"testing"

	"gotest.tools/v3/assert"
	is "gotest.tools/v3/assert/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestAPIError(t *testing.T) {
	t.Parallel()
	d := newDriver(t, usual())
	resource := schema.GroupResource{Group: "batch", Resource: "jobs"}
	assert.Check(t, is.ErrorContains(d.apiError("creating a Job", apierrors.NewForbidden(resource, "x", errors.New("no"))), "examples/kubernetes/rbac.yaml"))
	assert.Check(t, is.ErrorContains(d.apiError("creating a Job", apierrors.NewUnauthorized("no")), "log in again"))
	assert.Check(t, is.ErrorContains(d.createError(aTask(), apierrors.NewNotFound(resource, "ns")), "no such namespace"))
	_, ok := errors.AsType[*UnavailableError](d.apiError("x", errors.New("connection refused")))
	assert.Check(t, ok)
	for err, want := range map[error]bool{
		errors.New("connection refused"):                                        true,
		&tls.CertificateVerificationError{Err: errors.New("unknown authority")}: false,
		apierrors.NewTooManyRequests("later", 1):                                true,
		apierrors.NewInternalError(errors.New("etcd")):                          true,
		apierrors.NewForbidden(resource, "x", nil):                              false,
		apierrors.NewNotFound(resource, "x"):                                    false,
		apierrors.NewInvalid(schema.GroupKind{}, "", nil):                       false,
	} {
		assert.Check(t, is.Equal(passing(err), want), err.Error())
	}
}
