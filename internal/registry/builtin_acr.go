package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
)

// azureCloud is one of Microsoft's clouds.
type azureCloud struct {
	// suffix ends the names of its registries.
	suffix string
	// authority gives out tokens, audience is what they are for.
	authority, audience string
}

// The audiences are those of Azure's SDK for container registries.
var azureClouds = []azureCloud{
	{".azurecr.io", "https://login.microsoftonline.com", "https://containerregistry.azure.net"},
	{".azurecr.cn", "https://login.chinacloudapi.cn", "https://management.chinacloudapi.cn"},
	{".azurecr.us", "https://login.microsoftonline.us", "https://management.usgovcloudapi.net"},
}

func isACR(registry string) bool { _, ok := cloudOf(registry); return ok }

// cloudOf finds the cloud of a registry by the whole end of its name: a token
// must not go to a host that only looks like one.
func cloudOf(registry string) (azureCloud, bool) {
	for _, c := range azureClouds {
		if label, ok := strings.CutSuffix(registry, c.suffix); ok && label != "" {
			return c, true
		}
	}
	return azureCloud{}, false
}

// azure logs in to Azure's registries as a service principal: with the secret in
// AZURE_CLIENT_SECRET, or as a workload with the token in the file
// AZURE_FEDERATED_TOKEN_FILE; AZURE_CLIENT_ID and AZURE_TENANT_ID say as whom.
type azure struct {
	getenv func(string) string
	http   *http.Client
}

// newAzure always verifies: what it sends is worth more than one registry.
func newAzure(getenv func(string) string, agent string) *azure {
	return &azure{getenv, &http.Client{Transport: newTransport(trust{}, nil, agent), CheckRedirect: keepRedirect}}
}

// get trades a token of the directory for one of the registry. See
// "Authenticating with an Azure container registry" and Azure/acr,
// docs/AAD-OAuth.md.
func (a *azure) get(ctx context.Context, r Ref) (authn.AuthConfig, error) {
	cloud, ok := cloudOf(r.Registry)
	if !ok {
		return authn.AuthConfig{}, errNothing
	}
	tenant := a.getenv("AZURE_TENANT_ID")
	token, err := a.directoryToken(ctx, cloud, tenant)
	if err != nil {
		return authn.AuthConfig{}, err
	}
	var answer struct {
		RefreshToken string `json:"refresh_token"`
	}
	err = a.post(ctx, "https://"+r.Registry+"/oauth2/exchange", url.Values{
		"grant_type": {"access_token"}, "service": {r.Registry}, "tenant": {tenant}, "access_token": {token},
	}, &answer)
	if err != nil {
		return authn.AuthConfig{}, err
	}
	if answer.RefreshToken == "" {
		return authn.AuthConfig{}, fmt.Errorf("%s gave no token", r.Registry)
	}
	return authn.AuthConfig{IdentityToken: answer.RefreshToken}, nil
}

// directoryToken asks for a token of the Microsoft identity platform: "OAuth
// 2.0 client credentials flow", with a shared secret or a federated credential.
func (a *azure) directoryToken(ctx context.Context, cloud azureCloud, tenant string) (string, error) {
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {a.getenv("AZURE_CLIENT_ID")},
		"scope": {cloud.audience + "/.default"},
	}
	secret, file := a.getenv("AZURE_CLIENT_SECRET"), a.getenv("AZURE_FEDERATED_TOKEN_FILE")
	switch {
	case tenant == "" || form.Get("client_id") == "":
		return "", errors.New("AZURE_CLIENT_ID and AZURE_TENANT_ID are not set")
	case secret != "":
		form.Set("client_secret", secret)
	case file != "":
		data, err := os.ReadFile(file)
		if err != nil {
			return "", fmt.Errorf("AZURE_FEDERATED_TOKEN_FILE: %w", err)
		}
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", strings.TrimSpace(string(data)))
	default:
		return "", errors.New("neither AZURE_CLIENT_SECRET nor AZURE_FEDERATED_TOKEN_FILE is set")
	}
	authority := strings.TrimSuffix(cmp.Or(a.getenv("AZURE_AUTHORITY_HOST"), cloud.authority), "/")
	if !strings.HasPrefix(authority, "https://") {
		return "", errors.New("AZURE_AUTHORITY_HOST does not start with https://")
	}
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := a.post(ctx, authority+"/"+url.PathEscape(tenant)+"/oauth2/v2.0/token", form, &answer); err != nil {
		return "", err
	}
	if answer.AccessToken == "" {
		return "", fmt.Errorf("%s gave no token", authority)
	}
	return answer.AccessToken, nil
}

// post sends a form and reads JSON. What the answer to a failure says is left
// out, but for the code of the error.
func (a *azure) post(ctx context.Context, to string, form url.Values, answer any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := a.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		var failed struct {
			Error string `json:"error"`
		}
		if json.Unmarshal(body, &failed) != nil || failed.Error == "" {
			return fmt.Errorf("%s answered %d", req.URL.Host, resp.StatusCode)
		}
		return fmt.Errorf("%s answered %d (%s)", req.URL.Host, resp.StatusCode, failed.Error)
	}
	if json.Unmarshal(body, answer) != nil {
		return fmt.Errorf("%s gave no usable answer", req.URL.Host)
	}
	return nil
}
