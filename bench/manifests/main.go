// Command manifests reads manifests of Kubernetes as strictly as its API server does: no unknown kinds, and no unknown or
// repeated fields. A file may be a patch, of which only the fields count.
//
//	go run ./manifests ../examples/deploy/kubernetes/*.yaml
package main

import (
	"bytes"
	"fmt"
	"log"
	"os"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

// kinds are what manifests here may be.
var kinds = map[string]func() any{
	"apps/v1 Deployment":                 func() any { return new(apps.Deployment) },
	"v1 Service":                         func() any { return new(core.Service) },
	"policy/v1 PodDisruptionBudget":      func() any { return new(policy.PodDisruptionBudget) },
	"networking.k8s.io/v1 NetworkPolicy": func() any { return new(networking.NetworkPolicy) },
}

func main() {
	log.SetFlags(0)
	if len(os.Args) < 2 {
		log.Fatal("want the names of files")
	}
	for _, name := range os.Args[1:] {
		if err := check(name); err != nil {
			log.Fatalf("%s: %v", name, err)
		}
	}
}

func check(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	for i, document := range bytes.Split(text, []byte("\n---\n")) {
		var is struct{ APIVersion, Kind string }
		if err := yaml.Unmarshal(document, &is); err != nil {
			return fmt.Errorf("document %d: %w", i, err)
		}
		kind, ok := kinds[is.APIVersion+" "+is.Kind]
		if !ok {
			return fmt.Errorf("document %d: unknown kind %q of %q", i, is.Kind, is.APIVersion)
		}
		if err := yaml.UnmarshalStrict(document, kind()); err != nil {
			return fmt.Errorf("document %d, %s: %w", i, is.Kind, err)
		}
	}
	return nil
}
