package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/v1/google"
)

// isGoogle reports Container Registry and Artifact Registry.
func isGoogle(registry string) bool {
	return registry == "gcr.io" || strings.HasSuffix(registry, ".gcr.io") || strings.HasSuffix(registry, ".pkg.dev")
}

// googleHelper asks Google's application default credentials: the file in
// GOOGLE_APPLICATION_CREDENTIALS, that of gcloud, the metadata server; then
// the program gcloud. go-containerregistry's keychain is the same but keeps the
// first failure for ever.
func googleHelper(ctx context.Context, _ Ref) (authn.AuthConfig, error) {
	auth, err := google.NewEnvAuthenticator(ctx)
	if err != nil {
		var gcloudErr error
		if auth, gcloudErr = google.NewGcloudAuthenticator(ctx); gcloudErr != nil {
			return authn.AuthConfig{}, errors.Join(err, gcloudErr)
		}
	}
	config, authErr := auth.Authorization()
	if authErr != nil {
		return authn.AuthConfig{}, fmt.Errorf("getting a token: %w", authErr)
	}
	if *config == (authn.AuthConfig{}) {
		return authn.AuthConfig{}, err
	}
	return *config, nil
}
