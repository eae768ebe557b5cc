package registry

import (
	"context"
	"encoding/base64"
	"errors"
	"regexp"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/ecr"
	"github.com/aws/aws-sdk-go-v2/service/ecrpublic"
	"github.com/google/go-containerregistry/pkg/authn"
)

const (
	ecrPublic = "public.ecr.aws"
	// ecrPublicRegion is where its tokens come from, wherever one is.
	ecrPublicRegion = "us-east-1"
)

// ecrHost is ACCOUNT.dkr.ecr[-fips].REGION.amazonaws.com[.cn].
var ecrHost = regexp.MustCompile(`^([0-9]{12})\.dkr\.ecr(-fips)?\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?$`)

func isECR(registry string) bool { return registry == ecrPublic || ecrHost.MatchString(registry) }

// ecrHelper logs in to Amazon's registries with what AWS's own tools would use:
// variables, files, web identity, container and instance roles.
//
// Amazon's credential helper does the same, but keeps its tokens in a file
// below the home directory, where they could get into a layer, and knows no
// limit of time.
func ecrHelper(ctx context.Context, r Ref) (authn.AuthConfig, error) {
	return ecrLogin(ctx, r.Registry)
}

func ecrLogin(ctx context.Context, registry string, with ...func(*config.LoadOptions) error) (authn.AuthConfig, error) {
	region, private, fips := ecrPublicRegion, false, false
	if m := ecrHost.FindStringSubmatch(registry); m != nil {
		private, fips, region = true, m[2] != "", m[3]
	}
	with = append(with, config.WithRegion(region))
	if fips {
		with = append(with, config.WithUseFIPSEndpoint(aws.FIPSEndpointStateEnabled))
	}
	c, err := config.LoadDefaultConfig(ctx, with...)
	if err != nil {
		return authn.AuthConfig{}, err
	}
	if !private {
		return ecrPublicToken(ctx, c)
	}
	out, err := ecr.NewFromConfig(c).GetAuthorizationToken(ctx, &ecr.GetAuthorizationTokenInput{})
	if err != nil {
		return authn.AuthConfig{}, err
	}
	if len(out.AuthorizationData) == 0 {
		return authn.AuthConfig{}, errors.New("AWS gave no token")
	}
	return ecrToken(out.AuthorizationData[0].AuthorizationToken)
}

func ecrPublicToken(ctx context.Context, c aws.Config) (authn.AuthConfig, error) {
	out, err := ecrpublic.NewFromConfig(c).GetAuthorizationToken(ctx, &ecrpublic.GetAuthorizationTokenInput{})
	if err != nil {
		return authn.AuthConfig{}, err
	}
	if out.AuthorizationData == nil {
		return authn.AuthConfig{}, errors.New("AWS gave no token")
	}
	return ecrToken(out.AuthorizationData.AuthorizationToken)
}

// ecrToken reads the base64 of user:password.
func ecrToken(token *string) (authn.AuthConfig, error) {
	data, err := base64.StdEncoding.DecodeString(aws.ToString(token))
	user, password, ok := strings.Cut(string(data), ":")
	if err != nil || !ok {
		return authn.AuthConfig{}, errors.New("AWS gave a token that is not user:password")
	}
	return authn.AuthConfig{Username: user, Password: password}, nil
}
