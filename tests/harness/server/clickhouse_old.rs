//! ClickHouse 18.16, the server that Debian has: it stands for all that know neither deduplication tokens nor windows.
//!
//! In: folder and port. Out: its recipe. Guarantees: one user, without a password, from loopback only; nothing is read
//! or written outside the folder. On failure: see `server.rs`.

use std::path::Path;

use anyhow::Result;

use super::{Recipe, text};
use crate::addresses::{HOST, Ports};
use crate::install;
use crate::readiness::Probe;

pub(super) fn recipe(data: &Path, ports: Ports) -> Result<Recipe> {
    let folder = data.join("clickhouse");
    let (config, users) = (folder.join("config.xml"), folder.join("users.xml"));
    Ok(Recipe {
        name: "clickhouse",
        run: vec![text(&install::program("clickhouse-server")?), "-C".to_owned(), text(&config)],
        files: vec![(config, server(&folder, ports.clickhouse())), (users, USERS.to_owned())],
        prepare: Vec::new(),
        ports: vec![ports.clickhouse()],
        probe: Probe::Clickhouse(format!("http://{HOST}:{}", ports.clickhouse())),
        folder,
    })
}

fn server(folder: &Path, port: u16) -> String {
    let folder = text(folder);
    format!(
        "<yandex>\n\
         <logger><level>information</level><console>1</console></logger>\n\
         <http_port>{port}</http_port>\n\
         <listen_host>{HOST}</listen_host>\n\
         <path>{folder}/data/</path>\n\
         <tmp_path>{folder}/tmp/</tmp_path>\n\
         <user_files_path>{folder}/files/</user_files_path>\n\
         <users_config>users.xml</users_config>\n\
         <default_profile>default</default_profile>\n\
         <default_database>default</default_database>\n\
         <mark_cache_size>67108864</mark_cache_size>\n\
         </yandex>\n"
    )
}

const USERS: &str = "<yandex>\n\
    <profiles><default/></profiles>\n\
    <users><default><password></password><networks><ip>127.0.0.1</ip></networks>\n\
    <profile>default</profile><quota>default</quota></default></users>\n\
    <quotas><default/></quotas>\n\
    </yandex>\n";
