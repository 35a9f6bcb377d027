"""Trains the small tokenizers of this folder and writes the ids that the tokenizers package gives (pip install tokenizers==0.23.3)."""
import json, os
from tokenizers import Tokenizer, models, trainers, pre_tokenizers, decoders, normalizers, processors, Regex, AddedToken
out=os.path.dirname(os.path.abspath(__file__))
corpus = """The quick brown fox jumps over the lazy dog. A weight stays frozen while two thin factors learn beside it.
We measure the loss on text that was held out; the base is never changed. In 2024 the plant made 1200 valves, 37 of them twice.
def step(values, rate=0.125):\n    for i in range(len(values)):\n        values[i] -= rate * values[i]\n    return values\n
Patients rest before the second dose. The contract ends on the 31st of March. Don't pay twice; we'll refund it, I'm sure they've asked.
Über Äpfel und Öl: naïve Café-Gäste zahlen 3,50 €. L'été à Genève, où l'on dîne près du lac. El niño añadió piñas.
日本語の文章を短く書く。今日は天気がいい。中文句子也很短。我们测量损失。한국어 문장도 있습니다.
Привет, мир! Как дела? Добрый день. مرحبا بالعالم، كيف الحال؟ हिन्दी में एक वाक्य। Ελληνικά και μαθηματικά.
if (x != y && z >= 10) { return a[i] << 2; } // shift\n\tint count = 0;\r\n
THE TABLE HOLDS UPPER CASE WORDS, camelCaseNames AND snake_case_names. 🙂 👍🏽 👩‍👩‍👧 🏳️‍🌈
""".split('\n')
corpus = corpus*3 + ["    "*k+"return value" for k in range(1,6)] + ["low rank lower ranks lowest ranking"]*4
gpt2 = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
llama3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
qwen2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
P=pre_tokenizers
BL=lambda regex,prefix=False: P.ByteLevel(add_prefix_space=prefix,use_regex=regex)
SP=["<|endoftext|>","<|im_start|>","<|im_end|>"]
def train(pre, vocab=640, specials=SP, **kw):
    t=Tokenizer(models.BPE(**kw)); t.pre_tokenizer=pre; t.decoder=decoders.ByteLevel()
    t.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=vocab,special_tokens=specials,initial_alphabet=P.ByteLevel.alphabet(),show_progress=False))
    return t
T={}
T['gpt2']=train(BL(True))
T['smollm']=train(P.Sequence([P.Digits(individual_digits=True),BL(True)]))
t=train(P.Sequence([P.Split(Regex(llama3),'isolated'),BL(False)]), specials=["<|begin_of_text|>","<|end_of_text|>","<|eot_id|>"], ignore_merges=True)
t.post_processor=processors.Sequence([processors.ByteLevel(trim_offsets=False),processors.TemplateProcessing(single="<|begin_of_text|> $A",pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",special_tokens=[("<|begin_of_text|>",0)])])
T['llama3']=t
t=train(P.Sequence([P.Split(Regex(qwen2),'isolated'),BL(False)])); t.normalizer=normalizers.NFC()
T['qwen2']=t
# every option of the steps: prefix blank, removed, merged, contiguous, inverted, steps after the byte level; added tokens that strip and join
t=train(P.Sequence([P.Split('|','removed'),P.Punctuation('contiguous'),P.Split(Regex(r'[A-Z]+'),'merged_with_next'),P.Split(',','merged_with_previous'),BL(True,True),P.Digits(individual_digits=False),P.Split(Regex('[0-9][0-9][0-9]'),'isolated'),P.Split(Regex(r'[a-z]+'),'isolated',invert=True)]),vocab=560)
t.add_tokens([AddedToken('<tool>',lstrip=True,normalized=False),AddedToken('</tool>',rstrip=True,normalized=False),AddedToken('rank',single_word=True),AddedToken('low rank'),AddedToken('<|im_st',normalized=False)])
T['steps']=t
# a SentencePiece model as its converter writes it: characters, byte fallback, every way to build a token a merge
t=Tokenizer(models.BPE(unk_token='<unk>',fuse_unk=True,byte_fallback=True)); 
t.normalizer=normalizers.Sequence([normalizers.Prepend('▁'),normalizers.Replace(' ','▁')])
pre=Tokenizer(models.BPE()); pre.normalizer=t.normalizer; pre.pre_tokenizer=P.Split('▁','merged_with_next')
pre.train_from_iterator([c for c in corpus if c.isascii() or 'Ä' in c or 'é' in c], trainers.BpeTrainer(vocab_size=300,show_progress=False))
j=json.loads(pre.to_str()); base=j['model']['vocab']
base=dict(sorted(base.items(),key=lambda kv:kv[1])); chars=[c for c in base if len(c)==1 and c not in '\n\t\r']; words=[c for c in base if len(c)>1]
vocab={'<unk>':0,'<s>':1,'</s>':2}
for b in range(256): vocab['<0x%02X>'%b]=len(vocab)
for w in words: vocab[w]=len(vocab)
for c in chars: vocab[c]=len(vocab)
merges=[[w[:k],w[k:]] for w in words for k in range(1,len(w)) if w[:k] in vocab and w[k:] in vocab]
j=json.loads(t.to_str()); j['model']['vocab']=vocab; j['model']['merges']=merges
j['added_tokens']=[{"id":i,"content":s,"single_word":False,"lstrip":False,"rstrip":False,"normalized":False,"special":True} for i,s in enumerate(['<unk>','<s>','</s>'])]
t=Tokenizer.from_str(json.dumps(j))
t.decoder=decoders.Sequence([decoders.Replace('▁',' '),decoders.ByteFallback(),decoders.Fuse(),decoders.Strip(' ',1,0)])
t.post_processor=processors.TemplateProcessing(single="<s> $A",special_tokens=[("<s>",1)])
T['llama']=t
texts=["","The quick brown fox."," leading and trailing ","def step(values):\n    return values[0]\n\n\n\tx = 1","a  b   c    d\t\te\n\n\nf \n g\r\n\r\nh","1 12 123 1234 12345 1,234.56 ²³½ ٣٤٥ Ⅷ",
"don't DON'T we'll they've I'm 'S 'ſ x's","Wärme und  Äpfel — naïve café","e\u0301 n\u0303 A\u030a \u1100\u1161\u11a8 \u212b \uf900 q\u0307\u0323","日本語の文章、中文句子。한국어","مرحبا بالعالم ١٢٣","हिन्दी में","Привет, мир!","🙂 👩‍👩‍👧‍👦 🏳️‍🌈 👍🏽",
"\u00a0\u2003\u3000\u180e\u200b\ufeff\u0085\u2028x","lowranklowest"*40,"a"*300," "*300,"\n"*70+"x","<|im_start|>user\nhi<|im_end|>\n<|endoftext|><|im_st<|im_","low rank lowrank rank ranks (rank) _rank","a <tool> x | y, Z </tool>  b","<s>text</s> <unk>","<|begin_of_text|>x<|eot_id|>","camelCaseNames HTTPServer snake_case x_1","!!! ... (a) [b] {c} => != && // /* */ ##",
"\x00\x01\x07\x1b\x7f","\U0001F9FF\U000E0041\U0010FFFF\uE000","ǅ ß İ ı ﬁ","The contract ends on the 31st of March 2024.","▁under▁score ▁","Über"]
res={'texts':texts,'ids':{}}
for n,t in T.items():
    d=json.loads(t.to_str())
    if n=='gpt2': d['model']['merges']=[' '.join(m) for m in d['model']['merges']]
    os.makedirs(f'{out}/{n}',exist_ok=True)
    s=json.dumps(d,ensure_ascii=False,separators=(',',':'),sort_keys=False)
    open(f'{out}/{n}/tokenizer.json','w').write(s+'\n')
    t=Tokenizer.from_str(s)
    res['ids'][n]=[t.encode(x).ids for x in texts]
    print(n,t.get_vocab_size(),len(s.encode()))
open(f'{out}/expected.json','w').write(json.dumps(res,ensure_ascii=True,separators=(',',':')).replace('],[','],\n[')+'\n')
json.dump({"bos_token":"<|im_start|>","eos_token":{"content":"<|im_end|>"},"chat_template":"{{ messages }}"},open(f'{out}/smollm/tokenizer_config.json','w'),indent=2)
open(f'{out}/smollm/tokenizer_config.json','a').write('\n')
