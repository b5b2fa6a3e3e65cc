"""Chinese wording of the synthetic reports: how endoscopists put each fact."""

from __future__ import annotations

SITES = {
    "cecum": ("盲肠", "回盲部"),
    "ascending_colon": ("升结肠",),
    "hepatic_flexure": ("结肠肝曲", "肝曲"),
    "transverse_colon": ("横结肠",),
    "splenic_flexure": ("结肠脾曲", "脾曲"),
    "descending_colon": ("降结肠",),
    "sigmoid_colon": ("乙状结肠",),
    "rectum": ("直肠",),
}
FORM_WORDS = {
    "Is": ("广基", "无蒂", "宽基底"),
    "Isp": ("亚蒂", "短蒂"),
    "Ip": ("有蒂", "长蒂", "带蒂"),
    "IIa": ("扁平隆起型", "扁平"),
    "IIb": ("完全平坦型",),
    "IIc": ("凹陷型", "浅表凹陷型"),
}
MASS_NOUNS = ("不规则隆起型肿物", "肿物", "环腔生长的肿物", "占位性病变")
LST_NAMES = {
    "LST": ("侧向发育型肿瘤", "侧向发育型病变(LST)"),
    "G": ("侧向发育型肿瘤(颗粒型)", "LST-G"),
    "NG": ("侧向发育型肿瘤(非颗粒型)", "LST-NG"),
    "G_H": ("侧向发育型肿瘤(颗粒均一型,LST-G-H)", "LST-G-H"),
    "G_NM": ("侧向发育型肿瘤(颗粒型,结节混合型)", "LST-G-M"),
    "NG_FE": ("侧向发育型肿瘤(非颗粒型,扁平隆起型)", "LST-NG-FE"),
    "NG_PD": ("侧向发育型肿瘤(非颗粒型,假凹陷型)", "LST-NG-PD"),
}
SIZE_WORDS = {
    "diminutive_le5mm": ("微小", "米粒大小"),
    "giant_ge20mm": ("巨大",),
}
SURFACE = {
    "smooth": ("光滑", "光滑", "光整"),
    "granular": ("呈颗粒样", "呈细颗粒状"),
    "lobulated_nodular": ("分叶", "呈结节状", "呈分叶状", "呈桑葚样"),
    "villous_papillary": ("呈绒毛状", "呈乳头状"),
    "rough_irregular": ("粗糙", "凹凸不平", "粗糙不平"),
}
COLOUR = {
    "same_as_mucosa": ("色泽同周围黏膜", "色泽与周围黏膜相同", "颜色与周围黏膜一致"),
    "pale_whitish": ("色泽发白", "色灰白", "色泽偏淡"),
    "red_hyperaemic": ("充血", "色泽发红", "潮红", "色红"),
    "dark_brown": ("NBI下呈茶褐色", "NBI观察呈褐色"),
}
MARGIN = {
    ("clear",): ("边界清楚", "边界清晰", "界限清"),
    ("indistinct",): ("边界不清", "边界欠清", "界限不清"),
    ("irregular",): ("边缘不规则", "边缘不整齐"),
    ("clear", "irregular"): ("边界清楚但边缘不规则", "边界清,边缘不整"),
    ("indistinct", "irregular"): ("边界不清且边缘不规则", "边界欠清,边缘不整"),
}
MICRO_WORDS = {
    "nonneoplastic_pattern": ("腺管开口呈圆形,未见明显血管",),
    "regular_neoplastic_pattern": ("微血管走行规则", "腺管开口呈管状,排列规则"),
    "irregular_pattern": ("微血管粗细不均、走行紊乱", "微结构不规则"),
    "invasive_pattern": ("表面无结构,血管中断", "可见无结构区及血管中断"),
}
SECONDARY = {
    "ulcer_erosion": ("表面糜烂", "可见溃疡形成", "表面覆白苔", "覆污苔"),
    "central_depression": ("中央凹陷", "中央略凹陷"),
    "bleeding_friable": ("质脆,触之易出血", "接触易出血", "表面渗血"),
    "mucus_cap": ("表面覆黏液帽", "表面附着黏液"),
    "firm_or_nonlifting": ("质硬", "质地偏硬", "抬举征阴性"),
    "fold_convergence": ("周围皱襞集中", "皱襞纠集"),
    "luminal_narrowing": ("肠腔狭窄", "致肠腔狭窄,内镜勉强通过"),
}
ABSENT = {
    "ulcer_erosion": ("溃疡", "糜烂"),
    "central_depression": ("中央凹陷",),
    "bleeding_friable": ("出血", "渗血"),
}
TREATMENT = {
    "forceps_removal": ("予活检钳钳除", "以活检钳钳除"),
    "cold_snare": ("予冷圈套切除", "行冷圈套器切除术"),
    "hot_snare": ("予高频电圈套切除", "行热圈套切除"),
    "emr": ("行EMR切除", "黏膜下注射生理盐水{ml}ml后行EMR切除"),
    "esd": ("行ESD完整剥离",),
    "biopsy": ("活检{n}块", "取活检{n}块,质送病理"),
}
CLIP = ("钛夹夹闭创面", "创面予钛夹{n}枚夹闭", "以止血夹{n}枚封闭创面")
NORMAL = (
    "余所见肠段未见溃疡、新生物及狭窄",
    "其余所见结肠黏膜光滑,血管纹理清晰",
    "余结肠未见明显异常",
    "其余肠段未见溃疡及息肉",
)
CLEAN = (
    "所见各段结肠及直肠黏膜光滑,血管纹理清晰,未见溃疡、糜烂、息肉及新生物",
    "全结直肠黏膜光滑,未见息肉、溃疡及肿物",
    "所见结肠黏膜色泽正常,血管网清晰,未发现息肉及新生物",
)
OTHER = {
    "haemorrhoids": ("肛门齿状线处可见内痔", "肛管见痔核隆起,表面充血"),
    "diverticula": ("乙状结肠见多发憩室,开口直径约0.3-0.5cm", "升结肠可见数个憩室,无炎症"),
    "inflammation": (
        "乙状结肠黏膜散在充血、糜烂,范围约8cm,活检2块",
        "直肠黏膜充血水肿,血管纹理模糊,触之易出血",
    ),
    "melanosis": ("全结肠黏膜呈豹纹样改变", "结肠黏膜色素沉着,呈黑变病样改变"),
    "angioectasia": ("盲肠见一处毛细血管扩张,无出血",),
    "submucosal_lesion": ("升结肠见一黏膜下隆起,大小约1.2cm,表面光滑,质软,考虑脂肪瘤",),
    "anal_papilla": ("肛管见肥大肛乳头",),
    "lymphoid_hyperplasia": ("回肠末端见散在淋巴滤泡增生",),
    "scar_or_anastomosis": (
        "横结肠见原息肉切除术后瘢痕,未见息肉残留及复发",
        "乙状结肠可见EMR术后瘢痕,表面光滑,未见复发",
    ),
    "pseudopolyps": ("降结肠黏膜散在瘢痕样改变,未见息肉",),
}
DIAGNOSES = {
    "haemorrhoids": "内痔",
    "diverticula": "结肠憩室",
    "inflammation": "结直肠炎(待病理)",
    "melanosis": "结肠黑变病",
    "angioectasia": "盲肠血管扩张",
    "submucosal_lesion": "升结肠黏膜下隆起(脂肪瘤可能)",
    "anal_papilla": "肛乳头肥大",
    "lymphoid_hyperplasia": "回肠末端淋巴滤泡增生",
    "scar_or_anastomosis": "结肠息肉切除术后",
    "pseudopolyps": "溃疡性结肠炎缓解期",
}
INDICATIONS = ("体检", "便血待查", "腹痛待查", "大便习惯改变", "粪隐血阳性", "贫血待查", "排便不畅")
HISTORY = (
    "{year}年曾行结肠息肉切除术",
    "{year}年外院肠镜示乙状结肠{n}cm息肉,已行EMR术",
    "结肠息肉切除术后{n}年,复查",
)
SURNAMES = ("王", "李", "张", "刘", "陈", "杨", "赵", "黄", "周", "吴", "徐", "孙")
GIVEN_NAMES = ("建国", "秀英", "志强", "丽华", "明", "桂兰", "海涛", "玉梅", "国庆", "静")
ADVICE = ("定期复查", "1年后复查肠镜", "随访", "等待病理结果")
