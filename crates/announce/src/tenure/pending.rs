//! What is still to be said to the others, and how often: datagrams get lost.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use crate::beat::Word;

/// Each new word is said so often.
const SAID_TIMES: u8 = 3;

/// What a word is about: a newer one takes the place of an older one about the same. Whether a node can answer for an
/// address and whether it does are two things.
type Subject = (IpAddr, bool);

fn subject(ip: IpAddr, word: Word) -> Subject {
    (ip, matches!(word, Word::Able | Word::Unable))
}

/// Words to be said: new ones first, each several times.
#[derive(Debug, Default)]
pub(super) struct Pending {
    words: HashMap<Subject, (Word, u8)>,
    fresh: VecDeque<Subject>,
    again: VecDeque<Subject>,
}

impl Pending {
    pub(super) fn say(&mut self, ip: IpAddr, word: Word) {
        let subject = subject(ip, word);
        self.words.insert(subject, (word, SAID_TIMES));
        self.fresh.push_back(subject);
    }

    pub(super) fn say_once(&mut self, ip: IpAddr, word: Word) {
        let subject = subject(ip, word);
        self.words.entry(subject).or_insert_with(|| {
            self.again.push_back(subject);
            (word, 1)
        });
    }

    pub(super) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// What fits into one beat.
    pub(super) fn take(&mut self, most: usize) -> Vec<(IpAddr, Word)> {
        let mut taken: Vec<(Subject, Word)> = Vec::new();
        while taken.len() < most
            && let Some(subject) = self.fresh.pop_front()
        {
            if let Some((word, times)) =
                self.words.get_mut(&subject).filter(|(_, times)| *times == SAID_TIMES)
            {
                *times -= 1;
                taken.push((subject, *word));
                self.again.push_back(subject);
            }
        }
        for _ in 0..self.again.len() {
            if taken.len() >= most {
                break;
            }
            let Some(subject) = self.again.pop_front() else { break };
            let Some((word, times)) = self.words.get_mut(&subject) else { continue };
            if *times == SAID_TIMES || taken.iter().any(|(other, _)| *other == subject) {
                // Said anew meanwhile, or just now: once more with the next beat.
                if *times < SAID_TIMES {
                    self.again.push_back(subject);
                }
                continue;
            }
            taken.push((subject, *word));
            *times -= 1;
            if *times == 0 {
                self.words.remove(&subject);
            } else {
                self.again.push_back(subject);
            }
        }
        taken.into_iter().map(|((ip, _), word)| (ip, word)).collect()
    }
}
