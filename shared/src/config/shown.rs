//! A configuration as a program takes it, for people and for support: every key, also those that the file leaves out, and no
//! secret.
//!
//! Comes in: the text of a file that was checked, and the reference. Goes out: TOML. Guarantees: passwords, in keys of their
//! own, in urls and in options of librdkafka, are `***`; a secret that the file only names (`${file:…}`) is shown as its name
//! and never read. On failure: a text that is not TOML gives its own error; it was refused before.

use toml::{Table, Value};

use crate::secret::is_name;

/// What stands for a secret.
const HIDDEN: &str = "***";
/// Keys of secrets, and parts of the names of librdkafka's options, and of what a url asks for, that are.
const SECRETS: [&str; 6] = ["password", "secret", "token", "pem", "oauthbearer", "kinit"];

/// All of it.
///
/// # Errors
/// When one of the two is not TOML.
pub fn shown(text: &str, reference: &str) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let mut table: Table = reference.parse()?;
    without_tables(&mut table);
    merge(&mut table, text.parse()?);
    hide(&mut table);
    Ok(toml::to_string(&table)?)
}

/// Arrays of tables stand in a reference only so that they are known.
fn without_tables(table: &mut Table) {
    table.retain(|_, value| !value.as_array().is_some_and(|list| list.first().is_some_and(Value::is_table)));
    table.iter_mut().filter_map(|(_, value)| value.as_table_mut()).for_each(without_tables);
}

fn merge(below: &mut Table, above: Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above),
            (_, value) => drop(below.insert(key, value)),
        }
    }
}

fn hide(table: &mut Table) {
    for (key, value) in table.iter_mut() {
        match value {
            Value::Table(table) => hide(table),
            Value::Array(list) => {
                for item in list {
                    match item {
                        Value::Table(table) => hide(table),
                        Value::String(text) => *text = hidden_option(text),
                        _ => {}
                    }
                }
            }
            Value::String(text) if is_secret(key) => *text = hidden(text),
            Value::String(text) if key == "url" => *text = hidden_url(text),
            _ => {}
        }
    }
}

/// Whether what has this name is a secret.
pub(crate) fn is_secret(name: &str) -> bool {
    SECRETS.iter().any(|part| name.contains(part)) && !name.ends_with("_file")
}

/// What only names a secret, and what is empty, is none.
fn hidden(text: &str) -> String {
    if text.is_empty() || is_name(text) { text.to_owned() } else { HIDDEN.to_owned() }
}

fn hidden_option(text: &str) -> String {
    match text.split_once('=') {
        Some((name, value)) if is_secret(name) => format!("{name}={}", hidden(value)),
        _ => text.to_owned(),
    }
}

fn hidden_url(text: &str) -> String {
    let (place, asked) = text.split_once('?').map_or((text, None), |(place, asked)| (place, Some(asked)));
    // A password may hold a question mark, though it should be encoded.
    let (place, asked) =
        if asked.is_some_and(|asked| asked.contains('@')) { (text, None) } else { (place, asked) };
    let asked = asked.map(|asked| asked.split('&').map(hidden_option).collect::<Vec<_>>().join("&"));
    asked.map_or_else(|| hidden_login(place), |asked| format!("{}?{asked}", hidden_login(place)))
}

fn hidden_login(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    // The last one: a password may hold one, though it should be encoded; a database's name does not.
    let Some((login, place)) = rest.rsplit_once('@') else { return text.to_owned() };
    match login.split_once(':') {
        Some((user, password)) => format!("{scheme}://{user}:{}@{place}", hidden(password)),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFERENCE: &str = "name = ''\n[mqtt]\npassword = ''\nport = 1883\n[kafka]\noptions = []\n[sink.mysql]\nurl = ''\n\
        [[dimension]]\n[[sink.table]]\n";

    #[test]
    fn every_key_is_shown_and_no_secret() {
        let text = "name = 'gw'\nmqtt.password = 'hunter2'\n\
            kafka.options = ['sasl.password=hunter3', 'acks=all', 'ssl.key.password=${file:/k}']\n\
            [sink.mysql]\nurl = 'mysql://weir:hunter4@h:3306/d'\n\
            [[dimension]]\nurl = 'mysql://u:p@ss:x@h/d'\npassword = 5\ntls.key_file = '/k.pem'\n";
        let shown = shown(text, REFERENCE).unwrap();
        for part in [
            "name = \"gw\"",
            "port = 1883",
            "password = \"***\"",
            "sasl.password=***",
            "acks=all",
            "ssl.key.password=${file:/k}",
            "mysql://weir:***@h:3306/d",
            "mysql://u:***@h/d",
            "/k.pem",
        ] {
            assert!(shown.contains(part), "{part:?} is not in\n{shown}");
        }
        assert!(!shown.contains("hunter") && !shown.contains("ss:x"), "{shown}");
        let again: Table = shown.parse().unwrap();
        assert_eq!(again["dimension"].as_array().unwrap().len(), 1);
        assert!(again["sink"].get("table").is_none(), "{shown}");
    }

    #[test]
    fn what_only_names_a_secret_is_shown() {
        assert_eq!(hidden("${env:P}"), "${env:P}");
        assert_eq!(hidden("${env:P}x"), HIDDEN);
        assert_eq!(hidden("${env:P}secret${env:Q}"), HIDDEN);
        assert_eq!(hidden_url("mysql://u:${file:/p}@h/d"), "mysql://u:${file:/p}@h/d");
        assert_eq!(hidden("${HUNTER2}"), HIDDEN, "it names nothing");
        assert_eq!(
            hidden_option("sasl.oauthbearer.config=principal=x secret=y"),
            "sasl.oauthbearer.config=***"
        );
        assert_eq!(hidden_url("http://h:9200"), "http://h:9200");
        assert_eq!(hidden_url("http://h:8123/?user=u&password=p"), "http://h:8123/?user=u&password=***");
        assert_eq!(hidden_url("mysql://u:a?b@h/d"), "mysql://u:***@h/d");
        assert_eq!(hidden_url("mysql://u:a@h/d?x=1&token=p"), "mysql://u:***@h/d?x=1&token=***");
        assert_eq!(hidden_url(""), "");
    }
}
