"""Checks of the containers' files that need no docker engine. Each check returns the problems that it finds."""

import configparser
import fnmatch
import importlib.util
import json
import os
import re
import shlex
from pathlib import Path

import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf import wrappers_pb2 as wrappers
from tensorflow_serving.config import model_server_config_pb2

ROOT = Path(__file__).resolve().parent.parent
VERSION = re.compile(r"\d+\.\d+\.\d+")
UNPRIVILEGED = re.compile(r"[1-9]\d*(:[1-9]\d*)?$")

SERVER_FLAGS = {  # tensorflow_model_server does not start with an unknown flag
    "port",
    "rest_api_port",
    "model_config_file",
    "enable_batching",
    "batching_parameters_file",
    "monitoring_config_file",
    "enable_model_warmup",
    "rest_api_timeout_in_ms",
}


def message(name, fields):
    """Declares a protobuf message that tensorflow-serving-api lacks. `fields` is {name: (number, type)}."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package="published", syntax="proto3")
    file.dependency.append("google/protobuf/wrappers.proto")
    kinds = descriptor_pb2.FieldDescriptorProto
    declared = file.message_type.add(name=name)
    for field, (number, kind) in fields.items():
        repeated = field.startswith("allowed_")
        label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
        if isinstance(kind, str):
            declared.field.add(name=field, number=number, type=kinds.TYPE_MESSAGE, type_name=kind, label=label)
        else:
            declared.field.add(name=field, number=number, type=kind, label=label)
    return file


def message_class(name, *files):
    pool = descriptor_pool.DescriptorPool()
    wrapped = descriptor_pb2.FileDescriptorProto()
    wrappers.DESCRIPTOR.CopyToProto(wrapped)
    for file in (wrapped, *files):
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"published.{name}"))


INT64, TEXT = ".google.protobuf.Int64Value", ".google.protobuf.StringValue"
KIND = descriptor_pb2.FieldDescriptorProto
BatchingParameters = message_class(  # tensorflow_serving/servables/tensorflow/session_bundle_config.proto
    "BatchingParameters",
    message(
        "BatchingParameters",
        {
            "max_batch_size": (1, INT64),
            "batch_timeout_micros": (2, INT64),
            "max_enqueued_batches": (3, INT64),
            "num_batch_threads": (4, INT64),
            "thread_pool_name": (5, TEXT),
            "allowed_batch_sizes": (6, KIND.TYPE_INT64),
            "pad_variable_length_inputs": (7, KIND.TYPE_BOOL),
        },
    ),
)
_prometheus = message("PrometheusConfig", {"enable": (1, KIND.TYPE_BOOL), "path": (2, KIND.TYPE_STRING)})
_monitoring = message("MonitoringConfig", {"prometheus_config": (1, ".published.PrometheusConfig")})
_monitoring.dependency.append("PrometheusConfig.proto")
MonitoringConfig = message_class("MonitoringConfig", _prometheus, _monitoring)


class Files:
    """The parsed files of docker/."""

    def __init__(self, root):
        self.root = root
        self.serving = root / "docker" / "serving"
        self.compose = yaml.safe_load((self.serving / "compose.yaml").read_text())
        self.models = text_format.Parse((self.serving / "models.config").read_text(), model_server_config_pb2.ModelServerConfig())
        self.instructions = [
            (line.split(None, 1)[0], line.split(None, 1)[1])
            for line in re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", self.dockerfile)).splitlines()
            if line.strip()
        ]

    @property
    def dockerfile(self):
        return (self.root / "docker" / "Dockerfile").read_text()

    @property
    def server(self):
        return self.compose["services"]["tensorflow-serving"]

    @property
    def flags(self):
        """Flags of TensorFlow Serving with their values."""
        return dict(item.removeprefix("--").partition("=")[::2] for item in self.server["command"])

    def instruction(self, instruction_name):
        return [text for name, text in self.instructions if name == instruction_name]

    def mounted(self, target, run="RUN"):
        """The path on this machine that is mounted at `target` in TensorFlow Serving's container, or None."""
        for volume in self.server["volumes"]:
            if target == volume["target"]:
                source = re.sub(r"\$\{RUN:\?[^}]+\}", str(run), volume["source"])
                return Path(os.path.normpath(self.serving / source))
        return None


def unpinned(files, run):
    """Images without a full version such as 2.21.0."""
    arguments = dict(text.partition("=")[::2] for text in files.instruction("ARG"))
    images = [re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], text) for text in files.instruction("FROM")]
    images += [service["image"] for service in files.compose["services"].values() if "build" not in service]
    return [image for image in images if not VERSION.match(image.partition(":")[2])]


def unlike_tensorflow(files, run):
    """TensorFlow Serving must read the exports of every TensorFlow that setup.cfg allows."""
    setup = configparser.ConfigParser()
    setup.read(files.root / "setup.cfg")
    bounds = re.search(r"^tensorflow>=2\.(\d+),<2\.(\d+)$", setup["options"]["install_requires"], re.MULTILINE)
    minor = int(files.server["image"].split(":")[1].split(".")[1])
    return [] if minor == int(bounds[2]) - 1 else [f"TensorFlow Serving 2.{minor}, but TensorFlow up to 2.{int(bounds[2]) - 1}"]


def privileged(files, run):
    """Rights that a container does not need."""
    problems = []
    users = {name: str(service.get("user", "")) for name, service in files.compose["services"].items()}
    users["Dockerfile"] = (files.instruction("USER") or [""])[-1]
    problems += [
        f"{name} runs as {user or 'root'}" for name, user in users.items() if not re.match(r"[1-9]\d*(:[1-9]\d*)?$", user)
    ]
    for name, service in files.compose["services"].items():
        if service.get("read_only") is not True or service.get("cap_drop") != ["ALL"] or "privileged" in service:
            problems.append(f"{name} is not read-only without capabilities")
        if "no-new-privileges:true" not in service.get("security_opt", []):
            problems.append(f"{name} may gain privileges")
        problems += [f"{name} may write to {item['target']}" for item in service["volumes"] if item.get("read_only") is not True]
        problems += [
            f"{name} listens beyond this machine: {port}" for port in service["ports"] if not port.startswith("127.0.0.1:")
        ]
        if "mem_limit" not in service or "pids_limit" not in service:
            problems.append(f"{name} is not bounded")
    return problems


def disagreeing(files, run):
    """Flags, ports, mounts and files that contradict each other."""
    problems = [f"unknown flag --{name}" for name in set(files.flags) - SERVER_FLAGS]
    for name, path in files.flags.items():
        if name.endswith("_file") and not (files.mounted(path) or Path("/nowhere")).is_file():
            problems.append(f"--{name}={path} is not mounted from a file of the repository")
    inside = {port.split(":")[-1] for port in files.server["ports"]}
    problems += [f"port {port} is not published" for port in {files.flags["port"], files.flags["rest_api_port"]} - inside]
    for name, service in files.compose["services"].items():
        problems += [f"{name} has no start_period" for _ in [0] if "start_period" not in service["healthcheck"]]
        if f":{service['ports'][-1].split(':')[-1]}" not in re.sub(
            "/dev/tcp/127.0.0.1/", ":", service["healthcheck"]["test"][-1]
        ):
            problems.append(f"the health check of {name} asks another port")
    return problems


def not_the_export(files, run):
    """Models whose configuration differs from the export of a run."""
    problems = []
    for model in files.models.model_config_list.config:
        place = files.mounted(model.base_path, run)
        if place is None or not place.is_dir():
            problems.append(f"{model.base_path} is mounted from {place}")
            continue
        versions = [item for item in place.iterdir() if item.name.isdigit()]
        if not versions or not all((item / "saved_model.pb").is_file() for item in versions):
            problems.append(f"{place} has no version with a saved_model.pb")
            continue
        about = json.loads((versions[0] / "assets" / "model.json").read_text())
        if about["name"] != model.name:
            problems.append(f"the export is called {about['name']}, the configuration says {model.name}")
        if model.model_platform != "tensorflow" or not model.model_version_policy.latest.num_versions:
            problems.append(f"{model.name}: {model.model_platform}, {model.model_version_policy}")
        for name, service in files.compose["services"].items():
            names = re.findall(r"/v1/models/([\w-]+)", service["healthcheck"]["test"][-1])
            problems += [f"the health check of {name} asks for {names}"] if names != [model.name] else []
    return problems


def badly_batched(files, run):
    """Batching parameters that TensorFlow Serving refuses, or that do not suit the export."""
    text = (files.serving / "batching_parameters.txt").read_text()
    try:
        parameters = text_format.Parse(text, BatchingParameters())
    except text_format.ParseError as error:
        return [str(error)]
    largest = parameters.max_batch_size.value
    bounds = (largest, parameters.num_batch_threads.value, parameters.max_enqueued_batches.value)
    problems = [] if all(bounds) else ["a bound is missing"]
    sizes = list(parameters.allowed_batch_sizes)
    if sizes and (sizes != sorted(sizes) or sizes[-1] != largest):
        problems.append(f"allowed_batch_sizes {sizes} must rise to max_batch_size {largest}")
    problems += [] if "enable_batching" in files.flags else ["batching is not switched on"]
    (export,) = (run / "saved_model").iterdir()
    for signature, tensors in json.loads((export / "assets" / "model.json").read_text())["signatures"].items():
        for name, spec in {**tensors["inputs"], **tensors["outputs"]}.items():
            if not spec["shape"] or spec["shape"][0] is not None:
                problems.append(f"{signature}: {name} {spec['shape']} has no batch dimension")
    return problems


def badly_monitored(files, run):
    """A monitoring configuration that TensorFlow Serving refuses."""
    try:
        config = text_format.Parse((files.serving / "monitoring.config").read_text(), MonitoringConfig())
    except text_format.ParseError as error:
        return [str(error)]
    prometheus = config.prometheus_config
    return [] if prometheus.enable and prometheus.path.startswith("/monitoring/") else [str(config)]


def visible_to_the_build(files, path):
    """Whether Dockerfile.dockerignore does not exclude a path. The last pattern that matches decides."""
    visible = True
    for line in (files.root / "docker" / "Dockerfile.dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        parts = [path, *(str(parent) for parent in Path(path).parents if str(parent) != ".")]
        if pattern and not line.startswith("#") and any(_fits(part, pattern) for part in parts):
            visible = line.startswith("!")
    return visible


def _fits(path, pattern):
    inner = pattern.removeprefix("**/")
    return fnmatch.fnmatch(path, pattern) if inner == pattern else any(fnmatch.fnmatch(part, inner) for part in Path(path).parts)


def not_built(files, run):
    """Reasons for which the image would fail to build or to start."""
    problems = []
    for text in files.instruction("COPY"):
        for source in shlex.split(text)[:-1]:
            if not (files.root / source).exists():
                problems.append(f"COPY {source}: it does not exist")
            elif not visible_to_the_build(files, source):
                problems.append(f"COPY {source}: Dockerfile.dockerignore hides it")
    for outside in (
        "tests/test_docker.py",
        "runs/a/report.html",
        ".git/HEAD",
        "demo_data/x.jpg",
        "keras_skin/__pycache__/run.pyc",
    ):
        problems += [f"the build sees {outside}"] if visible_to_the_build(files, outside) else []
    entry = json.loads(files.instruction("ENTRYPOINT")[-1])
    commands = [entry, files.compose["services"]["page"]["entrypoint"]]
    for command in commands:
        module = command[command.index("-m") + 1]
        problems += [f"there is no module {module}"] if importlib.util.find_spec(module) is None else []
    used = set(re.findall(r"\$\{?([A-Z]\w+)", " ".join(text for name, text in files.instructions if name in ("FROM", "RUN"))))
    declared = {text.partition("=")[0] for text in files.instruction("ARG")}
    problems += [f"{name} is no build argument" for name in used - declared] + [f"{name} is not used" for name in declared - used]
    build_arguments = files.compose["services"]["page"]["build"]["args"]
    problems += [f"compose gives {name}, which the Dockerfile does not take" for name in set(build_arguments) - declared]
    return problems


CHECKS = (unpinned, unlike_tensorflow, privileged, disagreeing, not_the_export, badly_batched, badly_monitored, not_built)
