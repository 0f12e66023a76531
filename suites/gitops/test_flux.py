"""The Flux objects that bring the GPU stack."""

from __future__ import annotations

from labproof.checks.assertion import assert_holds
from labproof.plugin.clause import clause


@clause("GITOPS-THERE-001")
def test_declared_objects_are_there(judgement):
    """The Flux objects that lab.yaml names MUST be there.

    Preconditions: gitops is declared for the cluster
    Expected: each HelmRelease and Kustomization by namespace/name, in an API version the cluster serves
    """
    assert_holds(judgement)


@clause("GITOPS-SOURCE-001")
def test_sources_are_fetched(judgement):
    """The sources of the declared objects MUST be fetched.

    Preconditions: the objects are there
    Expected: no HelmRepository, OCIRepository, GitRepository or Bucket is suspended or not Ready
    """
    assert_holds(judgement)


@clause("GITOPS-APPLY-001")
def test_kustomizations_are_applied(judgement):
    """The declared Kustomizations MUST be applied.

    Preconditions: the sources are fetched
    Expected: generation observed, Ready, not suspended; no manifest in an API version that is gone
    """
    assert_holds(judgement)


@clause("GITOPS-RELEASE-001")
def test_releases_are_reconciled(judgement):
    """The declared HelmReleases MUST be reconciled, with the pinned chart version deployed.

    Preconditions: the sources are fetched
    Expected: generation observed, Ready, not stalled, not suspended; history names the pinned version
    """
    assert_holds(judgement)


@clause("GITOPS-WAIT-001")
def test_ready_stands_for_releases(judgement):
    """A Ready Kustomization MUST NOT hide a failing release.

    Preconditions: a Kustomization brings HelmReleases
    Expected: where one of them fails, the Kustomization waits for it (`wait` or healthChecks)
    """
    assert_holds(judgement)


@clause("GITOPS-DRIFT-001")
def test_plugin_runs_with_values_of_git(judgement):
    """The device plugin MUST run with the values in git.

    Preconditions: a declared HelmRelease carries the plugin's configuration
    Expected: sharing as in its values and as the plugin printed it when it started are equal
    """
    assert_holds(judgement)
