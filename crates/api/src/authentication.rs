//! `authentication.k8s.io`: who somebody is, by a token or as the caller. Answered, not stored.

pub mod v1 {
    use std::collections::BTreeMap;

    use crate::Time;

    question! {
        /// Whose token it is.
        TokenReview("io.k8s.api.authentication.v1.TokenReview", "authentication.k8s.io"):
            TokenReviewSpec => TokenReviewStatus
    }

    kind! {
        /// Who the caller is.
        SelfSubjectReview("io.k8s.api.authentication.v1.SelfSubjectReview", "authentication.k8s.io", "v1") {
            /// The answer.
            "status" status: Option<SelfSubjectReviewStatus>,
        }
    }

    question! {
        /// A token of a service account.
        TokenRequest("io.k8s.api.authentication.v1.TokenRequest", "authentication.k8s.io"):
            TokenRequestSpec => TokenRequestStatus
    }

    objects! {
        /// A token to be looked at.
        struct TokenReviewSpec("io.k8s.api.authentication.v1.TokenReviewSpec") {
            /// The token.
            "token" token: String,
            /// Whom the token must be meant for: one of these.
            "audiences" audiences: Vec<String>,
        }

        /// Whose it is.
        struct TokenReviewStatus("io.k8s.api.authentication.v1.TokenReviewStatus") {
            /// It is somebody's.
            "authenticated" authenticated: bool,
            /// Whose.
            "user" user: Option<UserInfo>,
            /// Those asked for that the token is meant for.
            "audiences" audiences: Vec<String>,
            /// Why it is nobody's.
            "error" error: String,
        }

        /// Who the caller is.
        struct SelfSubjectReviewStatus("io.k8s.api.authentication.v1.SelfSubjectReviewStatus") {
            /// The caller.
            "userInfo" user_info: UserInfo,
        }

        /// What is known of a user.
        struct UserInfo("io.k8s.api.authentication.v1.UserInfo") {
            /// The name.
            "username" username: String,
            /// What tells users of the same name apart.
            "uid" uid: String,
            /// The groups.
            "groups" groups: Vec<String>,
            /// What else is known.
            "extra" extra: BTreeMap<String, Vec<String>>,
        }

        /// What kind of token is wanted.
        struct TokenRequestSpec("io.k8s.api.authentication.v1.TokenRequestSpec") {
            /// Whom the token is meant for; none is the API server.
            "audiences" audiences: Vec<String>,
            /// How long it holds.
            "expirationSeconds" expiration_seconds: Option<i64>,
            /// What it ends with.
            "boundObjectRef" bound_object_ref: Option<BoundObjectReference>,
        }

        /// The token.
        struct TokenRequestStatus("io.k8s.api.authentication.v1.TokenRequestStatus") {
            /// The token.
            "token" token: String [.required()],
            /// When it ends.
            "expirationTimestamp" expiration_timestamp: Option<Time> [.required()],
        }

        /// An object with which a token ends.
        struct BoundObjectReference("io.k8s.api.authentication.v1.BoundObjectReference") {
            /// `Pod`, `Secret` or `Node`.
            "kind" kind: String,
            /// Its API version.
            "apiVersion" api_version: String,
            /// Its name.
            "name" name: String,
            /// Its uid.
            "uid" uid: String,
        }
    }
}
