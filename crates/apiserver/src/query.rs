//! Query parameters of requests, as Kubernetes reads them.
//!
//! Values are only taken apart here; what they mean together is the verbs' business.

use portolan_api::percent::decode;

/// The parameters of one request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
}

/// A parameter that cannot be read; the text is for the client.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadQuery(pub String);

impl Query {
    /// Takes a query string apart. Broken escapes make a parameter disappear, as Go's parser does.
    pub(crate) fn parse(text: Option<&str>) -> Self {
        let mut pairs = Vec::new();
        for part in text.unwrap_or_default().split('&').filter(|p| !p.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            if let (Some(name), Some(value)) =
                (decode(&name.replace('+', " ")), decode(&value.replace('+', " ")))
            {
                pairs.push((name, value));
            }
        }
        Self { pairs }
    }

    /// First value of a parameter; empty values count as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// All values of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A boolean: present and neither `0` nor `false` is true, as in Kubernetes.
    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        let (_, value) = self.pairs.iter().find(|(n, _)| n == name)?;
        Some(!(value == "0" || value.eq_ignore_ascii_case("false")))
    }

    /// A whole number.
    pub(crate) fn number(&self, name: &str) -> Result<Option<i64>, BadQuery> {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.parse()
            .map(Some)
            .map_err(|_| BadQuery(format!("strconv.ParseInt: parsing {text:?}: invalid syntax")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        let query = Query::parse(Some("labelSelector=a%3Db%2Cc&watch=true&limit=5&x=&y+z=1+2&bad=%z"));
        assert_eq!(query.get("labelSelector"), Some("a=b,c"));
        assert_eq!(query.flag("watch"), Some(true));
        assert_eq!(query.flag("x"), Some(true));
        assert_eq!(query.flag("absent"), None);
        assert_eq!(query.number("limit"), Ok(Some(5)));
        assert_eq!(query.get("x"), None);
        assert_eq!(query.get("y z"), Some("1 2"));
        assert_eq!(query.get("bad"), None);
        assert!(query.number("labelSelector").is_err());
        assert_eq!(Query::parse(Some("watch=0")).flag("watch"), Some(false));
    }
}
