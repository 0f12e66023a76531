"""Which values of lab.yaml are paths: those of a connection, never a word that happens to be called `key`."""

from pathlib import Path

from labproof.inventory.load import load_lab

LAB = """\
lab: paths
hosts:
  - {name: pve1, ssh: {address: pve1, key: keys/id}}
gpus:
  - {name: t4, host: pve1, device: "10de:1eb8"}
nodes:
  - {name: n1, cluster: c, gpus: [t4]}
clusters:
  - name: c
    kubeconfig: kube/config
    plugin: {flavour: nvidia-device-plugin}
    scheduling:
      labels: {ca: "yes", key: value}
      taints: [{key: nvidia.com/gpu, value: present}]
"""


def test_paths_are_taken_from_the_file_s_folder_and_words_stay_as_typed(tmp_path):
    file = tmp_path / "lab.yaml"
    file.write_text(LAB, "utf-8")
    lab = load_lab(file)
    assert Path(lab.hosts[0].ssh.key) == tmp_path / "keys/id"
    assert Path(lab.clusters[0].kubeconfig) == tmp_path / "kube/config"
    assert lab.clusters[0].scheduling.taints[0].key == "nvidia.com/gpu"
    assert lab.clusters[0].scheduling.labels == {"ca": "yes", "key": "value"}
