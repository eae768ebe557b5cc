package registry

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/google/go-containerregistry/pkg/authn"
	"gotest.tools/v3/assert"
)

// azureServer plays directory and registry, and keeps the forms.
type azureServer struct {
	forms map[string]url.Values
	fail  map[string]string
}

func (s *azureServer) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	req.ParseForm()
	at := req.Method + " " + req.Host + req.URL.Path
	s.forms[at] = req.PostForm
	switch answer, ok := s.fail[req.URL.Path]; {
	case ok:
		w.WriteHeader(400)
		fmt.Fprint(w, answer)
	case strings.HasPrefix(req.URL.Path, "/oauth2/exchange"):
		fmt.Fprint(w, `{"refresh_token":"r3fresh"}`)
	default:
		fmt.Fprint(w, `{"access_token":"aad-t0ken"}`)
	}
}

// azureAt leads all names to a server.
func azureAt(t *testing.T, h http.Handler, getenv func(string) string) *azure {
	s := httptest.NewTLSServer(h)
	t.Cleanup(s.Close)
	a := newAzure(getenv, "test")
	a.http.Transport = &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, s.Listener.Addr().String())
		},
	}
	return a
}

func TestAzure(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "token")
	assert.NilError(t, os.WriteFile(file, []byte("federated\n"), 0o600))
	who := []string{"AZURE_CLIENT_ID", "client", "AZURE_TENANT_ID", "tenant"}
	secret := append([]string{"AZURE_CLIENT_SECRET", "s3cr3t"}, who...)
	for _, tc := range []struct {
		name, registry string
		env            []string
		fail           map[string]string
		directory      string
		form           map[string]string
		err            string
	}{
		{"secret", "acme.azurecr.io", secret, nil, "login.microsoftonline.com",
			map[string]string{"client_id": "client", "client_secret": "s3cr3t", "grant_type": "client_credentials", "scope": "https://containerregistry.azure.net/.default"}, ""},
		{"workload_identity", "acme.azurecr.io", append([]string{"AZURE_FEDERATED_TOKEN_FILE", file}, who...), nil, "login.microsoftonline.com",
			map[string]string{"client_id": "client", "client_assertion": "federated", "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, ""},
		{"china", "acme.azurecr.cn", secret, nil, "login.chinacloudapi.cn", map[string]string{"scope": "https://management.chinacloudapi.cn/.default"}, ""},
		{"us_government", "acme.azurecr.us", secret, nil, "login.microsoftonline.us", map[string]string{"scope": "https://management.usgovcloudapi.net/.default"}, ""},
		{"authority", "acme.azurecr.io", append([]string{"AZURE_AUTHORITY_HOST", "https://login.test/"}, secret...), nil, "login.test", nil, ""},
		{"plain_authority", "acme.azurecr.io", append([]string{"AZURE_AUTHORITY_HOST", "http://login.test/"}, secret...), nil, "", nil, "does not start with https://"},
		{"nobody", "acme.azurecr.io", nil, nil, "", nil, "AZURE_CLIENT_ID and AZURE_TENANT_ID are not set"},
		{"no_secret", "acme.azurecr.io", who, nil, "", nil, "neither AZURE_CLIENT_SECRET nor AZURE_FEDERATED_TOKEN_FILE is set"},
		{"no_file", "acme.azurecr.io", append([]string{"AZURE_FEDERATED_TOKEN_FILE", "/no/such"}, who...), nil, "", nil, "AZURE_FEDERATED_TOKEN_FILE: open /no/such"},
		{"directory_refuses", "acme.azurecr.io", secret, map[string]string{"/tenant/oauth2/v2.0/token": `{"error":"invalid_client","error_description":"s3cr3t"}`}, "", nil, "login.microsoftonline.com answered 400 (invalid_client)"},
		{"registry_refuses", "acme.azurecr.io", secret, map[string]string{"/oauth2/exchange": `aad-t0ken`}, "", nil, "acme.azurecr.io answered 400"},
		{"look_alike", "acme.azurecr.io.evil.test", secret, nil, "", nil, errNothing.Error()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := &azureServer{forms: map[string]url.Values{}, fail: tc.fail}
			got, err := azureAt(t, s, env(tc.env...)).get(t.Context(), Ref{Registry: tc.registry})
			if tc.err != "" {
				assert.ErrorContains(t, err, tc.err)
				assert.Equal(t, got, authn.AuthConfig{})
				for _, secret := range []string{"s3cr3t", "aad-t0ken"} {
					assert.Assert(t, !strings.Contains(err.Error(), secret), "%v", err)
				}
				if tc.fail == nil {
					assert.Equal(t, len(s.forms), 0, "a request was sent")
				}
				return
			}
			assert.NilError(t, err)
			assert.Equal(t, got, authn.AuthConfig{IdentityToken: "r3fresh"})
			form, ok := s.forms["POST "+tc.directory+"/tenant/oauth2/v2.0/token"]
			assert.Assert(t, ok, "%v", s.forms)
			for k, v := range tc.form {
				assert.Equal(t, form.Get(k), v, k)
			}
			assert.DeepEqual(t, s.forms["POST "+tc.registry+"/oauth2/exchange"], url.Values{
				"grant_type": {"access_token"}, "service": {tc.registry}, "tenant": {"tenant"}, "access_token": {"aad-t0ken"},
			})
		})
	}
}

func TestAzureFollowsNoRedirect(t *testing.T) {
	t.Parallel()
	a := azureAt(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Host == "evil.test" {
			t.Error("the secret was sent on")
		}
		http.Redirect(w, req, "https://evil.test/", http.StatusTemporaryRedirect)
	}), env("AZURE_CLIENT_ID", "client", "AZURE_TENANT_ID", "tenant", "AZURE_CLIENT_SECRET", "s3cr3t"))
	_, err := a.get(t.Context(), Ref{Registry: "acme.azurecr.io"})
	assert.ErrorContains(t, err, "answered 307")
}

// TestAzureIsVerified: allowing anything for registries does not hold for the
// directory.
func TestAzureIsVerified(t *testing.T) {
	t.Parallel()
	rt := newAzure(env(), "test").http.Transport.(*roundTripper)
	req := httptest.NewRequest(http.MethodPost, "https://login.microsoftonline.com/x", nil)
	assert.Assert(t, !rt.pick(req).TLSClientConfig.InsecureSkipVerify)
}

func TestECR(t *testing.T) {
	t.Parallel()
	token := base64.StdEncoding.EncodeToString([]byte("AWS:hunter22"))
	for _, tc := range []struct {
		name, registry, answer string
		region, err            string
	}{
		{"private", "123456789012.dkr.ecr.eu-west-1.amazonaws.com", `{"authorizationData":[{"authorizationToken":"` + token + `"}]}`, "/eu-west-1/ecr/", ""},
		{"public", "public.ecr.aws", `{"authorizationData":{"authorizationToken":"` + token + `"}}`, "/us-east-1/ecr-public/", ""},
		{"no_token", "public.ecr.aws", `{}`, "/us-east-1/ecr-public/", "AWS gave no token"},
		{"bad_token", "public.ecr.aws", `{"authorizationData":{"authorizationToken":"s3cr3t!"}}`, "/us-east-1/ecr-public/", "is not user:password"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var auth string
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
				auth = req.Header.Get("Authorization")
				fmt.Fprint(w, tc.answer)
			}))
			t.Cleanup(s.Close)
			got, err := ecrLogin(t.Context(), tc.registry, config.WithBaseEndpoint(s.URL),
				config.WithCredentialsProvider(aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
					return aws.Credentials{AccessKeyID: "id", SecretAccessKey: "key"}, nil
				})))
			assert.Assert(t, strings.Contains(auth, tc.region), auth)
			if tc.err != "" {
				assert.ErrorContains(t, err, tc.err)
				assert.Assert(t, !strings.Contains(err.Error(), "s3cr3t"))
				return
			}
			assert.NilError(t, err)
			assert.Equal(t, got, authn.AuthConfig{Username: "AWS", Password: "hunter22"})
		})
	}
}

// TestGoogle uses the file of a service account; it changes the environment,
// which is where Google's library looks.
func TestGoogle(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"access_token":"g00gle","token_type":"Bearer","expires_in":3600}`)
	}))
	t.Cleanup(s.Close)
	priv, err := rsa.GenerateKey(rand.Reader, 2048)
	assert.NilError(t, err)
	file := filepath.Join(t.TempDir(), "account.json")
	assert.NilError(t, os.WriteFile(file, toJSON(t, map[string]string{
		"type": "service_account", "client_email": "a@b.test", "token_uri": s.URL,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(priv)})),
	}), 0o600))
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", file)
	got, err := googleHelper(t.Context(), Ref{})
	assert.NilError(t, err)
	assert.Equal(t, got, authn.AuthConfig{Username: "_token", Password: "g00gle"})

	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", filepath.Join(t.TempDir(), "none"))
	t.Setenv("PATH", t.TempDir())
	_, err = googleHelper(t.Context(), Ref{})
	assert.ErrorContains(t, err, "no such file")
}
