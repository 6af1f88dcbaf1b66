// The kube-apiserver that slow tests run against, built from the module proxy at the versions of go.mod:
// Kubernetes publishes its binaries elsewhere only. `.ci/provision kube-apiserver` builds it.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() { os.Exit(cli.Run(app.NewAPIServerCommand())) }
