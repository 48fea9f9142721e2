//! What runs in containers, as far as that can be seen without an engine: the Compose file is one, and names only what is
//! there; the chart renders in all its forms into what Kubernetes takes; and the programs accept the settings of both.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use compose_spec::Compose;
use serde::Deserialize as _;
use serde_yaml::Value;
use weir_harness::install;
use weir_harness::places::Places;

const SECRETS: [&str; 2] = ["mysql_password", "clickhouse_password"];

fn deploy(path: &str) -> PathBuf {
    Places::find().unwrap().root().join("deploy").join(path)
}

/// A folder that is gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("weir-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("it is ours");
    }
}

/// A program accepts these settings, with secrets in `folder` in place of where a container has them.
fn accepts(program: &str, settings: &str, mounted: &str, folder: &Folder) {
    for secret in SECRETS {
        std::fs::write(folder.0.join(secret), "secret\n").unwrap();
    }
    let file = folder.0.join("settings.toml");
    std::fs::write(&file, settings.replace(mounted, folder.0.to_str().unwrap())).unwrap();
    let own = std::env::current_exe().unwrap();
    let found =
        own.ancestors().skip(1).take(2).map(|folder| folder.join(program)).find(|path| path.is_file());
    let checked = Command::new(found.expect("it is built: `make build`"))
        .args(["check", "--config"])
        .arg(&file)
        .env("HOSTNAME", "4f1e2d3c4b5a")
        .env("POD_NAME", "weir-all-0")
        .output()
        .unwrap();
    assert!(checked.status.success(), "{}{settings}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn the_compose_file_is_one_and_all_that_it_names_is_there() {
    let file = deploy("compose/compose.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let compose: Compose = Compose::options().apply_merge(true).from_yaml_str(&text).unwrap();
    compose.validate_all().unwrap();
    let mut yaml: Value = serde_yaml::from_str(&text).unwrap();
    yaml.apply_merge().unwrap();
    let services = yaml["services"].as_mapping().unwrap();
    assert!(services.len() >= 9 && services.len() == compose.services.len(), "{} services", services.len());
    for (name, service) in services {
        let name = name.as_str().unwrap();
        let words = |key: &str| service[key].as_sequence().into_iter().flatten().map(|v| v.as_str().unwrap());
        for port in words("ports") {
            assert!(port.starts_with("127.0.0.1:"), "{name} publishes {port}");
        }
        for volume in words("volumes").filter(|volume| volume.starts_with('.')) {
            let source = volume.split(':').next().unwrap();
            assert!(file.with_file_name(source).exists(), "{name}: {source} is not there");
        }
        if name.starts_with("weir-") {
            assert_eq!(service["read_only"], Value::Bool(true), "{name}");
            assert_eq!(service["cap_drop"][0], "ALL", "{name}");
            let images = std::fs::read_to_string(deploy("container/Dockerfile")).unwrap();
            let image = service["image"].as_str().unwrap();
            assert!(images.contains(&format!(" AS {image}\n")), "no target {image}");
            // One service builds an image; the others take what it built.
            let builds = service["build"]["target"] == image;
            assert!(builds || service["pull_policy"] == "never", "{name}");
        }
    }
    let folder = Folder::new("compose");
    for program in ["weir-edge", "weir-cloud"] {
        let settings = std::fs::read_to_string(deploy(&format!("compose/{program}.toml"))).unwrap();
        accepts(program, &settings, "/run/secrets", &folder);
    }
}

fn helm(words: &[&str]) -> Output {
    let places = Places::find().unwrap();
    let helm = install::helm(&places, &mut |line| eprintln!("{line}")).unwrap();
    let folder = places.root().join("target/tmp/helm");
    Command::new(helm).args(words).env("HOME", folder).output().unwrap()
}

/// The chart with these values, as Kubernetes would get it.
fn rendered(values: &[&str]) -> Vec<Value> {
    let chart = deploy("helm/weir-cloud");
    let mut words = vec!["template", "weir", chart.to_str().unwrap(), "--kube-version", "1.30.0"];
    match values {
        ["--values", _] => words.extend(values),
        _ => values.iter().for_each(|value| words.extend(["--set", value])),
    }
    let output = helm(&words);
    assert!(output.status.success(), "{values:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let documents =
        serde_yaml::Deserializer::from_str(&text).map(|document| Value::deserialize(document).unwrap());
    documents.filter(|document| !document.is_null()).collect()
}

fn of_kind<'d>(documents: &'d [Value], kind: &str) -> Vec<&'d Value> {
    documents.iter().filter(|document| document["kind"] == kind).collect()
}

/// What Kubernetes calls restricted, and what the programs stand on.
fn is_restricted(workload: &Value) {
    let (pod, name) = (&workload["spec"]["template"]["spec"], &workload["metadata"]["name"]);
    let container = &pod["containers"][0];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name:?}");
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name:?}");
    assert_eq!(pod["automountServiceAccountToken"], false, "{name:?}");
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false, "{name:?}");
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{name:?}");
    assert_eq!(container["securityContext"]["capabilities"]["drop"][0], "ALL", "{name:?}");
    let mounts = container["volumeMounts"].as_sequence().unwrap();
    let volumes = pod["volumes"].as_sequence().unwrap();
    for mount in mounts {
        assert!(volumes.iter().any(|volume| volume["name"] == mount["name"]), "{name:?}: {mount:?}");
    }
}

#[test]
fn the_chart_renders_together_and_split_and_refuses_what_cannot_work() {
    let chart = deploy("helm/weir-cloud");
    let linted = helm(&["lint", "--strict", chart.to_str().unwrap()]);
    assert!(linted.status.success(), "{}", String::from_utf8_lossy(&linted.stdout));

    let together = rendered(&["secret=passwords"]);
    let sets = of_kind(&together, "StatefulSet");
    assert_eq!(sets.len(), 1);
    assert_eq!(sets[0]["spec"]["replicas"], 2);
    assert_eq!(sets[0]["spec"]["template"]["spec"]["containers"][0]["args"][0], "run");
    assert_eq!(of_kind(&together, "PodDisruptionBudget").len(), 1);
    sets.into_iter().chain(of_kind(&together, "Job")).for_each(is_restricted);
    let folder = Folder::new("chart");
    for config in of_kind(&together, "ConfigMap") {
        accepts(
            "weir-cloud",
            config["data"]["weir-cloud.toml"].as_str().unwrap(),
            "/run/secrets/weir",
            &folder,
        );
    }
    assert!(of_kind(&together, "NetworkPolicy").is_empty());

    let stores = "roles.mysql.enabled=true,roles.elasticsearch.enabled=true,roles.clickhouse.enabled=true";
    let split =
        rendered(&["together=false", "autoscaling.enabled=true", "serviceMonitor.enabled=true", stores]);
    let sets = of_kind(&split, "StatefulSet");
    let args: Vec<_> =
        sets.iter().map(|set| &set["spec"]["template"]["spec"]["containers"][0]["args"]).collect();
    assert_eq!(args.len(), 4);
    assert!(args.contains(&&serde_yaml::from_str("[sink, clickhouse]").unwrap()), "{args:?}");
    assert!(sets.iter().all(|set| set["spec"]["replicas"].is_null()), "KEDA says how many there are");
    let scaled = of_kind(&split, "ScaledObject");
    assert_eq!((scaled.len(), of_kind(&split, "ServiceMonitor").len()), (4, 1));
    for scaled in scaled {
        let target = &scaled["spec"]["scaleTargetRef"]["name"];
        // Four partitions, and two workers in each pod of the processor.
        let most = if *target == "weir-process" { 2 } else { 4 };
        assert_eq!(scaled["spec"]["maxReplicaCount"], most, "{target:?}");
        assert!(sets.iter().any(|set| set["metadata"]["name"] == *target), "{target:?}");
    }

    for (value, why) in [
        ("config=slot = 'a'", "config sets slot"),
        ("config=kafka.options = [\"a=b\"]\n'slot' = 1", "config sets slot"),
        ("config=[ admin ]", "config has [admin]"),
        ("config=[admin.tls]", "set admin.tls too"),
        // The schema: names that are none, and values of another kind.
        ("replcas=3", "property replcas is not allowed"),
        ("roles.mysq.enabled=true", "roles: Additional property mysq"),
        ("autoscaling.workers=0", "autoscaling.workers: Must be greater"),
        ("autoscaling.stores={mysq}", "must be one of the following: \"mysql\""),
        ("terminationGracePeriodSeconds=5", "Must be greater than or equal to 15"),
        ("autoscaling.enabled=true,autoscaling.minReplicas=5", "more than the 2 pods"),
    ] {
        let refused =
            helm(&["template", "weir", chart.to_str().unwrap(), "--kube-version", "1.30.0", "--set", value]);
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains(why), "{value}: {said}");
    }
}

#[test]
fn the_chart_guards_the_admin_port() {
    let folder = Folder::new("guarded");
    let guarded = folder.0.join("values.yaml");
    let config = format!("[[admin.token]]\nname = \"prometheus\"\ntoken = \"{}\"\n", "0123456789abcdef");
    let values = serde_json::json!({
        "config": config,
        "admin": { "tls": true, "tokenSecret": { "name": "tokens" } },
        "serviceMonitor": { "enabled": true, "tlsConfig": { "serverName": "weir" } },
        "networkPolicy": { "enabled": true, "from": [{ "namespaceSelector": {} }] },
        "extraVolumes": [{ "name": "audit", "emptyDir": {} }],
        "extraVolumeMounts": [{ "name": "audit", "mountPath": "/var/lib/audit" }],
        "nodeSelector": { "pool": "data" },
    });
    std::fs::write(&guarded, values.to_string()).unwrap();
    let guarded = rendered(&["--values", guarded.to_str().unwrap()]);
    let settings = of_kind(&guarded, "ConfigMap")[0]["data"]["weir-cloud.toml"].as_str().unwrap().to_owned();
    accepts("weir-cloud", &settings, "/run/secrets/weir", &folder);
    let pod = &of_kind(&guarded, "StatefulSet")[0]["spec"]["template"]["spec"]["containers"][0];
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        assert_eq!(pod[probe]["httpGet"]["scheme"], "HTTPS", "{probe}");
    }
    let endpoint = &of_kind(&guarded, "ServiceMonitor")[0]["spec"]["endpoints"][0];
    assert_eq!(
        (&endpoint["scheme"], &endpoint["authorization"]["credentials"]["name"]),
        (&"https".into(), &"tokens".into())
    );
    for kind in ["StatefulSet", "Job"] {
        let pod = &of_kind(&guarded, kind)[0]["spec"]["template"]["spec"];
        assert_eq!(pod["nodeSelector"]["pool"], "data", "{kind}");
        let has = |list: &Value| list.as_sequence().unwrap().iter().any(|item| item["name"] == "audit");
        assert!(has(&pod["volumes"]) && has(&pod["containers"][0]["volumeMounts"]), "{kind}");
    }
    assert_eq!(endpoint["tlsConfig"]["serverName"], "weir");
    let policy = &of_kind(&guarded, "NetworkPolicy")[0]["spec"];
    assert_eq!(policy["ingress"][0]["ports"][0]["port"], "admin");
}

#[test]
fn the_chart_scales_by_the_groups_that_there_are() {
    let sinks =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../cloud/src/sinks.rs")).unwrap();
    let reference = std::fs::read_to_string(deploy("weir-cloud.toml")).unwrap();
    let documents = rendered(&["autoscaling.enabled=true", "autoscaling.stores={mysql,clickhouse}"]);
    let scaled = of_kind(&documents, "ScaledObject");
    let triggers = scaled[0]["spec"]["triggers"].as_sequence().unwrap();
    assert_eq!(triggers.len(), 3);
    for trigger in triggers {
        let group = trigger["metadata"]["consumerGroup"].as_str().unwrap();
        let is_there = |text: &str| text.contains(&format!("\"{group}\""));
        assert!(is_there(&sinks) || reference.contains(&format!("group = \"{group}\"\n")), "{group}");
    }
}
