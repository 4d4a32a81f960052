//! The cluster's certificate authority, and the files that programs log in with.

use std::{fs, net::IpAddr, path::PathBuf};

use serde_json::{Value, json};

use crate::command;

const KEY: [&str; 4] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"];

/// A certificate authority with a folder for its files.
#[derive(Debug)]
pub(crate) struct Pki {
    folder: PathBuf,
    server: String,
}

impl Pki {
    /// Makes the authority, the API server's certificate for these addresses, and the key of service accounts.
    pub(crate) fn new(folder: PathBuf, addresses: &[IpAddr]) -> Self {
        fs::create_dir_all(&folder).expect("/run is ours");
        // What openssl's own settings would add to each certificate is left out.
        fs::write(folder.join("openssl.cnf"), "[req]\ndistinguished_name = name\n[name]\n").expect("/run is ours");
        let server = match addresses[0] {
            IpAddr::V4(address) => format!("https://{address}:6443"),
            IpAddr::V6(address) => format!("https://[{address}]:6443"),
        };
        let pki = Self { folder, server };
        pki.certificate("ca", "/CN=ca", "basicConstraints=critical,CA:TRUE", false);
        let names: Vec<String> = addresses.iter().map(|address| format!("IP:{address}")).collect();
        pki.certificate("api", "/CN=kube-apiserver", &format!("subjectAltName=DNS:kubernetes.default.svc,{}", names.join(",")), true);
        let (key, public) = (pki.file("sa.key"), pki.file("sa.pub"));
        command::run(&["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &key]);
        command::run(&["openssl", "pkey", "-in", &key, "-pubout", "-out", &public]);
        pki
    }

    /// Path of one of its files: `ca.crt`, `NAME.kubeconfig`, ...
    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }

    /// Makes a user, `/O=GROUP/CN=NAME`, and returns the path of its kubeconfig.
    pub(crate) fn user(&self, name: &str, subject: &str) -> String {
        self.certificate(name, subject, "extendedKeyUsage=clientAuth", true);
        let (certificate, key) = (self.file(&format!("{name}.crt")), self.file(&format!("{name}.key")));
        self.kubeconfig(name, &json!({ "client-certificate": certificate, "client-key": key }))
    }

    /// Writes a kubeconfig with these credentials, and returns its path.
    pub(crate) fn kubeconfig(&self, name: &str, credentials: &Value) -> String {
        let path = self.file(&format!("{name}.kubeconfig"));
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{ "name": "test", "cluster": { "server": self.server, "certificate-authority": self.file("ca.crt") } }],
            "users": [{ "name": name, "user": credentials }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": name } }],
        });
        fs::write(&path, config.to_string()).expect("/run is ours");
        path
    }

    fn certificate(&self, name: &str, subject: &str, extension: &str, signed: bool) {
        let (settings, key, out) = (self.file("openssl.cnf"), self.file(&format!("{name}.key")), self.file(&format!("{name}.crt")));
        let (ca, ca_key) = (self.file("ca.crt"), self.file("ca.key"));
        let mut arguments = vec!["openssl", "req", "-x509", "-config", &settings, "-nodes", "-days", "30"];
        arguments.extend(KEY);
        arguments.extend(["-subj", subject, "-addext", extension, "-keyout", &key, "-out", &out]);
        if signed {
            arguments.extend(["-CA", &ca, "-CAkey", &ca_key]);
        }
        command::run(&arguments);
    }
}
