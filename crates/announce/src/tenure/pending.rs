//! What is still to be said to the others, and how often: datagrams get lost.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use crate::beat::Word;

/// Each new word is said so often.
const SAID_TIMES: u8 = 3;

/// Words to be said: new ones first, each several times.
#[derive(Debug, Default)]
pub(super) struct Pending {
    words: HashMap<IpAddr, (Word, u8)>,
    fresh: VecDeque<IpAddr>,
    again: VecDeque<IpAddr>,
}

impl Pending {
    pub(super) fn say(&mut self, ip: IpAddr, word: Word) {
        self.words.insert(ip, (word, SAID_TIMES));
        self.fresh.push_back(ip);
    }

    pub(super) fn say_once(&mut self, ip: IpAddr, word: Word) {
        self.words.entry(ip).or_insert_with(|| {
            self.again.push_back(ip);
            (word, 1)
        });
    }

    pub(super) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// What fits into one beat.
    pub(super) fn take(&mut self, most: usize) -> Vec<(IpAddr, Word)> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(ip) = self.fresh.pop_front()
        {
            if let Some((word, times)) = self.words.get_mut(&ip).filter(|(_, times)| *times == SAID_TIMES) {
                *times -= 1;
                taken.push((ip, *word));
                self.again.push_back(ip);
            }
        }
        for _ in 0..self.again.len() {
            if taken.len() >= most {
                break;
            }
            let Some(ip) = self.again.pop_front() else { break };
            let Some((word, times)) = self.words.get_mut(&ip) else { continue };
            if *times == SAID_TIMES || taken.iter().any(|(other, _)| *other == ip) {
                // Said anew meanwhile, or just now: once more with the next beat.
                if *times < SAID_TIMES {
                    self.again.push_back(ip);
                }
                continue;
            }
            taken.push((ip, *word));
            *times -= 1;
            if *times == 0 {
                self.words.remove(&ip);
            } else {
                self.again.push_back(ip);
            }
        }
        taken
    }
}
