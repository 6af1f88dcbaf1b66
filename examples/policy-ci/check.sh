#!/bin/sh
# What a repository of policies runs for every change. Needs carbon-sched on the PATH, and no server.
set -eu
cd "$(dirname "$0")"

carbon-sched policy validate acme.yaml vision.yaml
carbon-sched policy test cases.yaml --policy acme.yaml --policy vision.yaml
